"""The room of closed-set detection with pose: an RT-DETR whose queries also say where in space they look.

One pass over a picture gives classes, boxes, depths and rotations of the objects that the model was trained
for. A second branch reconstructs masked features from geometry, and with it, or with other published
objectives, a model adapts itself to the pictures it meets (``ttt``).
"""
