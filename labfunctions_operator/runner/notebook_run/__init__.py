"""Executes one notebook with papermill and says exactly how it ended.

This package travels: the courier puts it, as a zip, into the pod, where the project's image runs it
with whatever Python (3.8 or later) and papermill (2.4 or later) it has. Hence nothing but the
standard library and itself at import, and no syntax or function that Python 3.8 lacks.
"""
