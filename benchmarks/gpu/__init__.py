"""Everything that is claimed of a GPU, checked and measured on one: `python -m benchmarks.gpu`.

It needs what serves models, no test tool and no installed distribution of this project. With
`--device cpu` the same checks run on a CPU. Results are written as they come.
"""
