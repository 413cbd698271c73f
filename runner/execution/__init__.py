"""Jobs → a finished folder: the driver, its checks and plans, the executors."""
