"""What is inconsistent among mesh, camera, picture, depth, mask, box and pose of one object, and why.

``inputs`` holds what is given; ``input_checks`` looks at each thing by itself (with ``objects.checks`` and
``depth_holes``); ``consistency`` draws the object and lays it over the rest; ``without_pose`` compares what
needs no drawing; ``repairs`` is the table of usual mistakes; ``diagnosis`` finds the one whose repair makes
all agree, and gives ``findings``.
"""
