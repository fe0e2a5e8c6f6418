"""Blocks of networks that more than one room needs: backbones, and files of weights that carry their config.

``checkpoint`` writes and reads weights as safetensors, without unpickling, with a report of every key.
``backbones`` are ConvNeXt and a small network for CPUs, ``convnext_weights`` reads the former's files;
``fpn`` is the pyramid over them, ``pooling`` averages exactly, ``pictures`` says how pictures come,
``descriptor`` joins them to a dense descriptor of objects. ``rope`` turns queries and keys by their places,
``vit`` is a transformer made so, and ``croco_weights`` reads a user's file for it. ``precision`` says what is
wide enough to be added up.
"""
