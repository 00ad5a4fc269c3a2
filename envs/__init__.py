"""Sites: nameplates, batched twins, tasks, plants, and the adapters to other libraries' interfaces."""
