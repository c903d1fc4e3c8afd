"""A row for each item, whatever it is."""


def init():
    pass


def run(mini_batch):
    return ["x"] * len(mini_batch)
