"""Folder for nnU-Net's `nnUNet_extTrainer`; what lies here runs in nnU-Net's environment, without this project."""
