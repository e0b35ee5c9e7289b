"""The training of a run in this process, alone or as one of several ranks."""

from sft.models import torch_setup
from sft.training import attempts
from sft.training.run_setup import Run, make_trainer


def train_run(run: Run) -> int:
    """Train from where the run starts to its last step, or until a stop is asked for; returns the step reached."""
    stage = run.stage
    distributed = run.plan is not None
    torch_setup.prepare(
        stage.options.threads,
        needs_bitsandbytes="8bit" in stage.config["training"]["optim"],
        every_device=distributed,
    )
    device = torch_setup.chosen_device(stage.options.device)
    trainer = make_trainer(run, device)
    main = trainer.ranks.main
    if main:
        attempts.note(stage.directory, run.attempt, torch_setup.device_facts(device))
    run.stop.defer()
    trainer.train(resume_from_checkpoint=str(run.start.path) if run.start.path else None)
    if main:
        stream = trainer.books.stream
        stream.close()
        trainer.books.mirror.close()
        replayed = {"replayed": stream.replayed, "replayed_equal": stream.replayed_equal}
        attempts.note(stage.directory, run.attempt, replayed)
    trainer.ranks.wait()
    return trainer.state.global_step
