"""Is the written file equal to the checkpoint?"""
