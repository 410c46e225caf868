"""Whether everything is right and fast on a GPU, in one call: ``bash tools/gpu_check.sh``, see ``docs/gpu.md``."""
