r"""Sums of products of rows, in vector instructions: the arithmetic of stencils and of multigrid.

Applying a stencil, relaxing a colour, forming residuals, restricting, interpolating, and the products of a multigrid
set-up are all of one form,

.. math:: y = (b \pm \sum_t w_t \circ v_t) / d ,

with a handful of rows w and v that lie somewhere in one or two arrays. Written as a loop over the points, numba's
compiler must check at run time that y overlaps none of them, gives up above eight rows, and does the ends of rows, all
of a short one, point by point. Here the loop over the terms is inside the one over blocks of points: sums stay in
registers, and blocks are vectors by type: 3 to 5 times as fast on rows of 16 to 200 points, and compiled in a moment.

All reads of a block come before its write, so that the arrays may be the same. At the end of a row a whole block is
read, and what lies beyond is written back as it was: arrays need `LANES` numbers more than they use, unless rows are
whole blocks.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16  # of a cache line in single precision


def _sums(operation: str) -> Any:
    """The compiled function that adds ("fadd") or subtracts ("fsub") products."""

    @intrinsic
    def sums(  # type: ignore[no-untyped-def]
        typing_context, array, factors, operands, n, out, base, divisor, terms, first, last, weights, values
    ):
        word = types.intp
        signature = types.void(array, factors, operands, word, word, word, word, terms, word, word, word, word)

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            array, factors, operands, n, out, base, divisor, terms, first, last, weights, values = arguments
            scalar = context.get_value_type(signature.args[0].dtype)
            align = context.get_abi_sizeof(scalar)
            vector, integer = ir.VectorType(scalar, LANES), n.type
            data, factors, operands, table = (
                context.make_array(signature.args[number])(context, builder, given).data
                for number, given in ((0, array), (1, factors), (2, operands), (7, terms))
            )
            zero, one = integer(0), integer(1)

            def place(start, position):  # type: ignore[no-untyped-def]
                return builder.bitcast(builder.gep(start, [position]), vector.as_pointer())

            def read(start, position):  # type: ignore[no-untyped-def]
                return builder.load(place(start, position), align=align)

            single = ir.VectorType(context.get_value_type(signature.args[2].dtype), LANES)

            def operand(position):  # type: ignore[no-untyped-def]
                if single == vector:
                    return read(operands, position)
                narrow = builder.bitcast(builder.gep(operands, [position]), single.as_pointer())
                return builder.fpext(builder.load(narrow, align=align // 2), vector)

            def write(block, position):  # type: ignore[no-untyped-def]
                builder.store(block, place(data, position), align=align)

            total = cgutils.alloca_once(builder, vector)
            with cgutils.for_range_slice(builder, zero, n, integer(LANES), integer) as (k, _):
                with builder.if_else(builder.icmp_signed(">=", base, zero)) as (given, absent):
                    with given:
                        builder.store(read(data, builder.add(base, k)), total)
                    with absent:
                        builder.store(vector(None), total)
                weights_here, values_here = builder.add(weights, k), builder.add(values, k)
                with cgutils.for_range_slice(builder, first, last, one, integer) as (t, _):
                    row = builder.gep(table, [builder.shl(t, one)])
                    weight = read(factors, builder.add(weights_here, builder.load(row)))
                    value = operand(builder.add(values_here, builder.load(builder.gep(row, [one]))))
                    product = builder.fmul(weight, value, flags=("contract",))
                    builder.store(getattr(builder, operation)(builder.load(total), product, flags=("contract",)), total)
                with builder.if_then(builder.icmp_signed(">=", divisor, zero)):
                    builder.store(builder.fdiv(builder.load(total), read(factors, builder.add(divisor, k))), total)
                to, left = builder.add(out, k), builder.sub(n, k)
                with builder.if_else(builder.icmp_signed(">=", left, integer(LANES))) as (whole, end):
                    with whole:
                        write(builder.load(total), to)
                    with end:
                        lanes = ir.VectorType(integer, LANES)
                        spread = builder.insert_element(lanes(ir.Undefined), left, ir.IntType(32)(0))
                        order = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
                        limit = builder.shuffle_vector(spread, lanes(ir.Undefined), order)
                        inside = builder.icmp_signed("<", ir.Constant(lanes, list(range(LANES))), limit)
                        write(builder.select(inside, builder.load(total), read(data, to)), to)
            return context.get_dummy_value()

        return signature, generate

    sign = "+" if operation == "fadd" else "-"
    sums.__doc__ = f"""array[out + k] = (array[base + k] {sign} sum_t w_t v_t) / factors[divisor + k] for k < n.

    ``w_t = factors[weights + terms[t, 0] + k]``, ``v_t = operands[values + terms[t, 1] + k]``, t from first to last.
    Without a base (-1) the sum begins with zero; without a divisor (-1) it is not divided. The three arrays, which may
    be the same, are contiguous and of one precision, single or double, but that the operands may be single where the
    others are double; ``terms`` is a contiguous (count, 2) table of int64.
    """
    return sums


add_products, subtract_products = _sums("fadd"), _sums("fsub")
