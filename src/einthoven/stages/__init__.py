"""Stages: pretrain, probe, finetune, and posttrain, which is probe then finetune."""
