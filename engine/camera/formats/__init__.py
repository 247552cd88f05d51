"""The formats of keyframes, a module each; `keyscale.engine.camera.keyframes` tries them in turn."""
