"""The engine for real processes and hosts, over torch.distributed; nothing else imports that."""
