"""A study of four cells, and what a trial would say of each."""

TINY = """
title: A tiny study
common: {validation_tasks: 4, backbone.width: 8, meta_batch: 2, tasks_per_epoch: 4, max_epochs: 2, queries: 2,
         validation_queries: 2}
data: [tiny]
seeds: [0, 1]
cells:
  mtl: {recipe: mtl-cifar-fs-5shot-conv4, options: {ways: 5}}
  protonet: {recipe: protonet-cifar-fs-5shot-conv4, options: {ways: 5}}
measure: {ways: 5, shots: [1, 5], queries: 2, tasks: 12}
"""
COSTS = {"start": 1, "task": 0.1, "validation": 0.01, "measuring": 5, "memory": 100, "disk": 2}
TRIAL = {"on": "its data", "costs": COSTS, "max_epochs": 2, "tasks_per_epoch": 4, "images_per_task": 20}
