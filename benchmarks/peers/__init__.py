"""Peers as ordinary user programs, through their public interfaces."""
