from startup_ray.cli import entry

if __name__ == "__main__":
    entry()
