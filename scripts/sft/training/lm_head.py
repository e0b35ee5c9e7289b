"""TRL's fused LM head, on devices for which it does not leave out what needs no logits."""


def score_labelled_positions_only() -> bool:
    """Let TRL's fused LM head compute the logits of labelled positions only; returns whether it now does.

    TRL 1.16 does so where Triton is and scores every position elsewhere, for compilers that want fixed shapes. On
    a CPU with a vocabulary of 49,152 and short answers that costs a third of the time.
    """
    from trl.trainer import utils

    if not hasattr(utils, "_use_triton"):
        return False
    # Only the choice in this module: the kernels have a binding of their own and still ask for a Triton device.
    utils._use_triton = lambda _device: True
    return True
