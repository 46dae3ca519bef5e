"""How what people write, and what is written for them, is read and checked: numbers, files, records.

Does not know: what any of it says, who asks.
"""
