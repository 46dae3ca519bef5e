"""The engine for real processes and hosts, over torch.distributed; nothing else imports that.

Does not know: what the actions compute.
"""
