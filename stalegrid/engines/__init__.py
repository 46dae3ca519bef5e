"""Engines: when and where the actions of a program happen; never what they compute."""
