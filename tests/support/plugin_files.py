"""The source of a method, as tests write it into plug-in files."""

METHOD = """
    from harness import MethodConfig, SteeringMethod, register

    @register("mine")
    class Mine(SteeringMethod):
        '''Mine alone.'''
        class Config(MethodConfig):
            layer: int = 3
            strength: float = 0.5
            tag: str = "x"
"""
