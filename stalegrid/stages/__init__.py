"""What one stage computes, and at which weights: its cut from its neighbours, versions, views and corrections.

Does not know: other units, schedules of others.
"""
