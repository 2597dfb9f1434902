"""Azure OpenAI: OpenAI's wire behind deployments, dated API versions and an ``api-key`` header.

Source: learn.microsoft.com/azure/ai-foundry/openai/reference, …/openai/api-version-lifecycle.
"""

from __future__ import annotations

from typing import ClassVar, Final, Self
from urllib.parse import quote

from pydantic import model_validator

from proxy.errors import ApiError
from proxy.providers.base import ProviderSettings, Target
from proxy.providers.openai import OpenAI
from proxy.providers.openai_history import NOT_OPENAIS
from proxy.request import ApiRequest
from proxy.upstream.base import UpstreamRequest

#: `api_version` values of the surface that has no dates (`/openai/v1`, the deployment in the body).
_UNDATED: Final = ("v1", "latest", "preview")
_PATHS: Final = {"chat": "chat/completions", "completions": "completions", "embeddings": "embeddings"}


class AzureSettings(ProviderSettings):
    """An ``azure_openai`` entry of llm.yml."""

    azure_endpoint: str | None = None
    """``https://NAME.openai.azure.com``; ``base_url`` says the same."""
    azure_deployment: str | None = None
    """The deployment that serves ``model``. Any other model's name is its deployment's name."""
    api_version: str = "2024-10-21"
    """A dated version, or ``v1``."""

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if not self.azure_endpoint and not self.base_url:
            raise ValueError("an azure_openai provider needs azure_endpoint: https://NAME.openai.azure.com")
        return self


class AzureOpenAI(OpenAI):
    """Azure's dialect of OpenAI's wire: other paths, another key header, parameters by API version."""

    kind: ClassVar[str] = "azure_openai"
    Settings: ClassVar[type[ProviderSettings]] = AzureSettings
    default_base_url: ClassVar[str] = ""
    lists_models: ClassVar[bool] = False  # it lists base models; what is asked for are deployments

    def __init__(self, name: str, settings: ProviderSettings) -> None:
        super().__init__(name, settings)
        version: str = self.settings.api_version
        self._v1 = self.base_url().endswith("/openai/v1")
        self._query = "" if self._v1 and version != "preview" else f"?api-version={quote(version, safe='')}"
        if settings.stream_usage == "auto" and not self._v1 and version < "2024-09":
            self.stream_usage = False  # stream_options came with 2024-09-01-preview
        self._own = True
        self._foreign = NOT_OPENAIS
        # Before 2025 only the reasoning models' deployments took max_completion_tokens.
        self._modern = self._v1 or version >= "2025"

    def base_url(self) -> str:
        base: str = self.settings.base_url or self.settings.azure_endpoint
        base = base.rstrip("/").partition("/openai/deployments/")[0]
        if base.endswith("/openai/v1"):
            return base
        base = base.removesuffix("/openai")
        return f"{base}/openai/v1" if self.settings.api_version in _UNDATED else base

    def credentials(self, key: str) -> list[tuple[str, str]]:
        return [("api-key", key)]

    def deployment(self, target: Target) -> str:
        """Return the name of the deployment that serves the target's model."""
        own: str | None = self.settings.azure_deployment
        in_url = (self.settings.base_url or "").partition("/openai/deployments/")[2].strip("/")
        if in_url:
            return in_url
        return own if own and self.settings.model in (None, target.model) else target.model

    def path(self, endpoint: str, target: Target) -> str:
        end = _PATHS[endpoint] + self._query
        if self._v1:
            return "/" + end
        deployment = self.deployment(target)
        if not deployment.strip("."):  # a path of dots would leave the folder
            raise ApiError("model_not_found", f"There is no deployment `{deployment}`.", param="model")
        return f"/openai/deployments/{quote(deployment, safe='')}/{end}"

    def encode(self, request: ApiRequest, target: Target) -> UpstreamRequest:
        if self._v1:
            target = Target(target.name, self.deployment(target), self)
        return super().encode(request, target)

    def probe(self) -> UpstreamRequest:
        path = "/models" if self._v1 else "/openai/models"
        return UpstreamRequest(path + self._query, b"", self._headers, method="GET")
