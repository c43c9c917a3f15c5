"""Given a dataset: train, evaluate and use a neural operator; and finish what it predicts by a solver.

    from operators.predict import load              # load("runs/tfno/best.pt").predict(fields)
    from operators.hybrid import certify            # certify(model, family, sample, rtol)

The package itself imports nothing: torch takes seconds, and the commands' ``--help`` should not wait for it.
"""
