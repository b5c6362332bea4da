"""The one kernel of the course: the Python that runs Jupyter, whatever kernels the user has."""

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

from courseware.surroundings import FOREIGN


class OwnKernelSpecs(KernelSpecManager):
    """Offers ``python3`` only: ``sys.executable -m ipykernel_launcher``.

    Jupyter looks into the user's folder as well, and prefers what is there unless the user owns
    the environment. A kernel that another course left there would then run the notebooks of this
    one. JupyterLab uses this class because ``make setup`` installs
    ``requirements/jupyter_server_config.json`` into the environment.
    """

    def _kernel_dirs_default(self) -> list[str]:
        return []

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """Return the kernel ``python3``, which sees no packages of another Python.

        Raises:
            NoSuchKernel: if ``kernel_name`` is another one.
        """
        spec = super().get_kernel_spec(kernel_name)
        spec.env = {**spec.env, **dict.fromkeys(FOREIGN, "")}  # empty is as good as not set
        return spec
