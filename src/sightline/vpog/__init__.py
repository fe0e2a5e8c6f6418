"""Pose of objects never seen in training (VPOG): their templates' patches are matched, then every pixel.

``encoder`` turns pictures into tokens, ``token_manager`` adds learned ones, ``aa_module`` lets the tokens of
query and templates look at one another, ``classification_head`` names the template patch of each query patch
or says that none shows it, ``flow_head`` says where exactly each pixel lies in it; ``model`` joins them.
``flow_computer`` makes the labels from depth, ``template_selector`` chooses templates, ``losses`` and
``pose_loss`` are what is learned, ``data`` what it is learned from; ``correspondence`` turns an output into
pixels with points.
"""
