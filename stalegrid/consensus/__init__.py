"""Averaging across groups: who mixes with whom, when, and what it does to parameters or gradients."""
