"""Bytes to arrays and back: JSON, npy, npz, PNG and JPEG. Pure functions, no HTTP, no torch.

Whatever a client sends is checked here before anything is queued: shape, dtype, finite numbers,
labels in range. What leaves `tensors` can not poison a batch.
"""
