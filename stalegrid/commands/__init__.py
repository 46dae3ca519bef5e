"""What each command asks for and says, one file each.

Does not know: how anything is done.
"""
