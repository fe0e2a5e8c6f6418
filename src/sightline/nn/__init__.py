"""Blocks of networks that more than one room needs: backbones, and files of weights that carry their config.

``checkpoint`` writes and reads weights as safetensors, without unpickling, with a report of every key.
"""
