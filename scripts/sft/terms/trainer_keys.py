"""Keys of `training:` and what the trainer calls them."""

# Keys of `training` that the trainer knows under the same name.
SAME_NAME = (
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "optim",
    "max_grad_norm",
    "activation_checkpointing",
)
