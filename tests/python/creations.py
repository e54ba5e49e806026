"""How each concept is created, by a name and options of its memory."""

import penstock
from penstock.trajectories import TrajectoryReader, TrajectoryWriter

CREATIONS = {
    "Broadcast": lambda name, **memory: penstock.Broadcast.create(name, readers=1, **memory),
    "Queue": penstock.Queue.create,
    "Store": penstock.Store.create,
    "TrajectoryReader": lambda name, **memory: TrajectoryReader.create(name, sequences=4, **memory),
    "TrajectoryWriter": lambda name, **memory: TrajectoryWriter.create(name, **memory),
}
