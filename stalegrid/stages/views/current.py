"""The weights of now, with the activations of the forward.

Does not know: how activations are kept.
"""

from stalegrid.stages.views.base import View


class Current(View):
    """The plainest view, which keeps no copy.

    The gradient is of no function: what the authors' code of FDG (arXiv 1906.09108) computes, and PipeMare's base.
    """
