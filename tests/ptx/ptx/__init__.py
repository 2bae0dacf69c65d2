"""The kernels' real PTX, run by an interpreter in NumPy.

`parser` reads PTX, `machine` runs a launch with all threads of a grid at once: a register is an array with one element
a thread.  `memory`, `races` and `counters` watch what a launch does; `device` puts the package's own CUDA engine on
top, so that what is run is what a GPU would be given.
"""
