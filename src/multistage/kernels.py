"""The one kernel of the course: this very interpreter, whatever kernels the user has."""

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

from multistage.surroundings import FOREIGN


class OwnKernelSpecs(KernelSpecManager):
    """Knows ``python3`` alone: ``sys.executable -m ipykernel_launcher``.

    Jupyter looks into the user's folder as well, and prefers what is there unless the user owns
    the environment. A kernel that another course left there would then run the notebooks of this
    one. JupyterLab finds this class by ``requirements/jupyter_server_config.json``.
    """

    def _kernel_dirs_default(self) -> list[str]:
        return []

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """Return the kernel ``python3``; packages of another Python are none of its business.

        Raises:
            NoSuchKernel: if ``kernel_name`` is another one.
        """
        spec = super().get_kernel_spec(kernel_name)
        spec.env = {**spec.env, **dict.fromkeys(FOREIGN, "")}  # empty is as good as not set
        return spec
