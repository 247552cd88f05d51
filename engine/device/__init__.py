"""Frames on a GPU from the decoder's planes to the encoder's: colour and camera in torch."""
