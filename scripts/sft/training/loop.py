"""The training of a run in this process, alone or as one of several ranks."""

import gc

from sft.models import torch_setup
from sft.runtime import attempts
from sft.runtime.out_of_memory import OutOfMemoryError, is_out_of_memory
from sft.training.backends import backend
from sft.training.resume import needed_packages
from sft.training.run_setup import Run, make_trainer


def train_here(run: Run) -> int:
    """`train_run` in the only process of a run; OutOfMemoryError when memory was short, with all of it free again."""
    reason = ""
    try:
        return train_run(run)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = (str(error).splitlines() or ["no memory"])[0][:200]
    # Out of the except block: while an error is handled, its traceback keeps the model and its gradients alive.
    _free()
    raise OutOfMemoryError(reason)


def _free() -> None:
    import torch
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def train_run(run: Run) -> int:
    """Train from where the run starts to its last step, or until a stop is asked for; returns the step reached."""
    stage = run.stage
    distributed = run.plan is not None
    needed = needed_packages(run.settings.training)
    trained_by = backend(run.settings.training.backend)
    torch_setup.prepare(
        stage.options.threads,
        needs_bitsandbytes="bitsandbytes" in needed,
        needs_torchao="torchao" in needed,
        every_device=distributed,
        first=lambda: trained_by.start(stage.options.device),
    )
    device = torch_setup.chosen_device(stage.options.device)
    trainer = make_trainer(run, device)
    main = trainer.ranks.main
    if main:
        attempts.note(stage.directory, run.attempt, torch_setup.device_facts(device))
    run.stop.defer()
    trainer.train(resume_from_checkpoint=str(run.start.path) if run.start.path else None)
    stream, mirror = trainer.books.stream, trainer.books.mirror
    if stream is not None and mirror is not None:
        stream.close()
        mirror.close()
        replayed = {"replayed": stream.replayed, "replayed_equal": stream.replayed_equal}
        attempts.note(stage.directory, run.attempt, replayed)
    trainer.ranks.wait()
    return trainer.state.global_step
