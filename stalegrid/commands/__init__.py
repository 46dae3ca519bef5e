"""The commands, one file each: what it asks for, what it does with the answers."""
