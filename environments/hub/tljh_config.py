"""The Littlest JupyterHub: /opt/tljh/config/jupyterhub_config.d/genokit.py. Every server has the same workspace."""

c = get_config()  # noqa: F821
c.Spawner.environment = {
    "GENOKIT_WORKSPACE": "/srv/workspace",
    "GENOKIT_MEMBER": lambda spawner: spawner.user.name,
}
