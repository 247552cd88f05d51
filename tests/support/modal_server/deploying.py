"""The RPCs of `modal deploy` and of looking up what was deployed: apps, functions, classes, images."""

from __future__ import annotations

import time
from typing import cast

from google.protobuf import json_format  # type: ignore[import-untyped]
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from .dispatch import rpc
from .images import ImageRecord
from .scheduler import Scheduler
from .state import ENVIRONMENT, SUCCESS, App, Definition, Function, World

# Fields that a function shares with each of its ranked alternatives.
SHARED = {field.json_name for field in api_pb2.Function.DESCRIPTOR.fields} & {
    field.json_name for field in api_pb2.FunctionData.DESCRIPTOR.fields
}


class Deploying:
    """Apps, their functions and classes, and the images that these run in."""

    def __init__(self, world: World, scheduler: Scheduler, *, builder_version: str) -> None:
        self._world = world
        self._scheduler = scheduler
        self._builder_version = builder_version

    @rpc
    async def client_hello(self) -> api_pb2.ClientHelloResponse:
        """Signing in; the token was checked already."""
        return api_pb2.ClientHelloResponse(image_builder_version=self._builder_version)

    @rpc
    async def environment_get_or_create(
        self, request: api_pb2.EnvironmentGetOrCreateRequest
    ) -> api_pb2.EnvironmentGetOrCreateResponse:
        """The one environment."""
        _check_environment(request.deployment_name)
        settings = api_pb2.EnvironmentSettings(image_builder_version=self._builder_version)
        return api_pb2.EnvironmentGetOrCreateResponse(
            environment_id="en-main", metadata=api_pb2.EnvironmentMetadata(name=ENVIRONMENT, settings=settings)
        )

    @rpc
    async def app_get_by_deployment_name(
        self, request: api_pb2.AppGetByDeploymentNameRequest
    ) -> api_pb2.AppGetByDeploymentNameResponse:
        """The id of a deployed app; empty where there is none."""
        _check_environment(request.environment_name)
        app = self._world.app_named(request.name)
        return api_pb2.AppGetByDeploymentNameResponse(app_id=app.id if app else "", environment_name=ENVIRONMENT)

    @rpc
    async def app_create(self, request: api_pb2.AppCreateRequest) -> api_pb2.AppCreateResponse:
        """A new app, which runs nothing until it is published."""
        _check_environment(request.environment_name)
        app = App(id=self._world.new_id("ap"), name=request.description, state=request.app_state)
        self._world.apps[app.id] = app
        return api_pb2.AppCreateResponse(app_id=app.id, app_page_url=_page(app), app_logs_url=_page(app))

    @rpc
    async def app_get_layout(self, request: api_pb2.AppGetLayoutRequest) -> api_pb2.AppGetLayoutResponse:
        """Ids of the functions and classes of an app."""
        return api_pb2.AppGetLayoutResponse(app_layout=layout(self._world, self._app(request.app_id)))

    @rpc
    async def app_heartbeat(self, request: api_pb2.AppHeartbeatRequest) -> None:
        """The deploying client is still there."""
        self._app(request.app_id)

    @rpc
    async def app_client_disconnect(self, request: api_pb2.AppClientDisconnectRequest) -> None:
        """The client gives up: an app that was not published yet, or that lives with its client, ends."""
        app = self._app(request.app_id)
        if app.state in {api_pb2.APP_STATE_INITIALIZING, api_pb2.APP_STATE_EPHEMERAL}:
            self._scheduler.stop_app(app)

    @rpc
    async def app_stop(self, request: api_pb2.AppStopRequest) -> None:
        """Take an app down."""
        self._scheduler.stop_app(self._app(request.app_id))

    @rpc
    async def app_publish(self, request: api_pb2.AppPublishRequest) -> api_pb2.AppPublishResponse:
        """Make the functions that were created since what runs from now on."""
        app = self._app(request.app_id)
        gone = set(app.function_ids.values()) - set(request.function_ids.values())
        app.name = request.name or app.name
        app.state = request.app_state or app.state
        app.function_ids = dict(request.function_ids)
        app.class_ids = dict(request.class_ids)
        app.version += 1
        app.deployed_at = time.time()
        for function_id, definition_id in request.definition_ids.items():
            self._world.functions[function_id].current = self._world.definitions[definition_id]
            self._world.functions[function_id].failed_starts = 0
        variants = {f.id for f in self._world.functions.values() if f.base_id and f.app_id == app.id}
        for function_id in gone | variants:
            # Variants were bound to the version before: the client asks for them anew.
            self._scheduler.stop_function(self._world.functions[function_id])
        self._world.bell.ring()
        return api_pb2.AppPublishResponse(url=_page(app), deployed_at=app.deployed_at)

    @rpc
    async def function_precreate(self, request: api_pb2.FunctionPrecreateRequest) -> api_pb2.FunctionPrecreateResponse:
        """An id for a function that will be created, so that others may refer to it."""
        function = self._world.functions.get(request.existing_function_id)
        if function is None:
            app = self._app(request.app_id)
            function = Function(id=self._world.new_id("fu"), app_id=app.id, name=request.function_name)
            self._world.functions[function.id] = function
        handle = api_pb2.FunctionHandleMetadata(
            app_id=function.app_id,
            function_name=request.function_name,
            function_type=request.function_type,
            function_schema=request.function_schema,
            supported_input_formats=request.supported_input_formats,
            supported_output_formats=request.supported_output_formats,
            method_handle_metadata=_methods(dict(request.method_definitions), function),
        )
        if function.current is None:
            function.handle = handle
        return api_pb2.FunctionPrecreateResponse(function_id=function.id, handle_metadata=handle)

    @rpc
    async def function_create(self, request: api_pb2.FunctionCreateRequest) -> api_pb2.FunctionCreateResponse:
        """A version of a function; it runs once the app is published."""
        data = request.function_data if request.HasField("function_data") else _single(request.function)
        first = min(data.ranked_functions, key=lambda ranked: ranked.rank).function
        function = self._world.functions.get(request.existing_function_id)
        if function is None:
            function = Function(id=self._world.new_id("fu"), app_id=request.app_id, name=first.function_name)
            self._world.functions[function.id] = function
        definition = Definition(id=self._world.new_id("de"), function=first, data=data)
        self._world.definitions[definition.id] = definition
        function.handle = api_pb2.FunctionHandleMetadata(
            app_id=function.app_id,
            function_name=first.function_name,
            function_type=first.function_type,
            is_method=first.is_method,
            definition_id=definition.id,
            class_parameter_info=first.class_parameter_info,
            function_schema=first.function_schema,
            supported_input_formats=first.supported_input_formats,
            supported_output_formats=first.supported_output_formats,
            method_handle_metadata=_methods(dict(first.method_definitions), function),
        )
        return api_pb2.FunctionCreateResponse(
            function_id=function.id, function=first, function_data=data, handle_metadata=function.handle
        )

    @rpc
    async def function_get(self, request: api_pb2.FunctionGetRequest) -> api_pb2.FunctionGetResponse:
        """A deployed function by the names of its app and of itself."""
        _check_environment(request.environment_name)
        app = self._deployed(request.app_name)
        function_id = app.function_ids.get(request.object_tag)
        if function_id is None:
            raise GRPCError(
                Status.NOT_FOUND, f"App '{app.name}' has no function '{request.object_tag}' in its latest version"
            )
        function = self._world.function(function_id)
        assert function.current is not None
        return api_pb2.FunctionGetResponse(
            function_id=function.id, handle_metadata=function.handle, function=function.current.data
        )

    @rpc
    async def function_get_by_id(self, request: api_pb2.FunctionGetByIdRequest) -> api_pb2.FunctionGetByIdResponse:
        """A function by its id."""
        function = self._world.function(request.function_id)
        assert function.current is not None
        return api_pb2.FunctionGetByIdResponse(function=function.current.data, handle_metadata=function.handle)

    @rpc
    async def class_create(self, request: api_pb2.ClassCreateRequest) -> api_pb2.ClassCreateResponse:
        """An id for a class; its methods are those of its service function."""
        class_id = request.existing_class_id or self._world.new_id("cs")
        return api_pb2.ClassCreateResponse(class_id=class_id, handle_metadata=api_pb2.ClassHandleMetadata())

    @rpc
    async def class_get(self, request: api_pb2.ClassGetRequest) -> api_pb2.ClassGetResponse:
        """A deployed class by the names of its app and of itself."""
        _check_environment(request.environment_name)
        app = self._deployed(request.app_name)
        class_id = app.class_ids.get(request.object_tag)
        if class_id is None:
            raise GRPCError(Status.NOT_FOUND, f"App '{app.name}' has no class '{request.object_tag}'")
        return api_pb2.ClassGetResponse(class_id=class_id, handle_metadata=api_pb2.ClassHandleMetadata())

    @rpc
    async def function_bind_params(
        self, request: api_pb2.FunctionBindParamsRequest
    ) -> api_pb2.FunctionBindParamsResponse:
        """A variant of a function: with parameters of its class, or with options of its own."""
        base = self._world.function(request.function_id)
        assert base.current is not None
        definition = Definition(
            id=self._world.new_id("de"),
            function=_with_options(base.current.function, request.function_options),
            data=base.current.data,
            serialized_params=request.serialized_params,
        )
        for known in self._world.functions.values():
            # The same wish gives the same variant, so that its containers serve it again.
            if known.base_id == base.id and known.current is not None and _same(known.current, definition):
                return api_pb2.FunctionBindParamsResponse(bound_function_id=known.id, handle_metadata=known.handle)
        variant = Function(
            id=self._world.new_id("fu"), app_id=base.app_id, name=base.name, base_id=base.id, current=definition
        )
        variant.handle.CopyFrom(base.handle)
        variant.handle.base_function_id = base.id
        self._world.functions[variant.id] = variant
        return api_pb2.FunctionBindParamsResponse(bound_function_id=variant.id, handle_metadata=variant.handle)

    @rpc
    async def image_get_or_create(self, request: api_pb2.ImageGetOrCreateRequest) -> api_pb2.ImageGetOrCreateResponse:
        """Record a layer of an image. Nothing is built: it counts as built at once."""
        image = request.image
        record = ImageRecord(
            id=self._world.new_id("im"),
            bases=tuple(base.image_id for base in image.base_images),
            commands=tuple(image.dockerfile_commands),
            context_files={file.filename: file.data for file in image.context_files},
            context_mount_id=image.context_mount_id,
            build_function=image.build_function.definition,
            secret_ids=tuple(image.secret_ids),
            gpu=image.gpu_config.gpu_type,
            builder_version=request.builder_version,
        )
        self._world.images[record.id] = record
        return api_pb2.ImageGetOrCreateResponse(
            image_id=record.id,
            result=api_pb2.GenericResult(status=SUCCESS),
            metadata=api_pb2.ImageMetadata(image_builder_version=request.builder_version),
        )

    def _app(self, app_id: str) -> App:
        if app_id not in self._world.apps:
            raise GRPCError(Status.NOT_FOUND, f"App {app_id} not found")
        return self._world.apps[app_id]

    def _deployed(self, name: str) -> App:
        app = self._world.app_named(name)
        if app is None:
            raise GRPCError(Status.NOT_FOUND, f"App '{name}' not found in environment '{ENVIRONMENT}'")
        return app


def layout(world: World, app: App) -> api_pb2.AppLayout:
    """An app's functions and classes with what a client or container has to know of them."""
    found = api_pb2.AppLayout(function_ids=app.function_ids, class_ids=app.class_ids)
    for function_id in app.function_ids.values():
        found.objects.add(object_id=function_id, function_handle_metadata=world.functions[function_id].handle)
    for class_id in app.class_ids.values():
        found.objects.add(object_id=class_id, class_handle_metadata=api_pb2.ClassHandleMetadata())
    return found


def _check_environment(name: str) -> None:
    if name not in {"", ENVIRONMENT}:
        raise GRPCError(Status.NOT_FOUND, f"Environment '{name}' not found")


def _page(app: App) -> str:
    return f"http://127.0.0.1/apps/{app.id}"


def _single(function: api_pb2.Function) -> api_pb2.FunctionData:
    shared = {name: value for name, value in json_format.MessageToDict(function).items() if name in SHARED}
    data = cast(api_pb2.FunctionData, json_format.ParseDict(shared, api_pb2.FunctionData()))
    data.ranked_functions.add(rank=0, function=function)
    return data


def _methods(
    definitions: dict[str, api_pb2.MethodDefinition], function: Function
) -> dict[str, api_pb2.FunctionHandleMetadata]:
    return {
        name: api_pb2.FunctionHandleMetadata(
            app_id=function.app_id,
            function_name=definition.function_name,
            function_type=definition.function_type,
            is_method=True,
            use_method_name=name,
            function_schema=definition.function_schema,
            supported_input_formats=definition.supported_input_formats,
            supported_output_formats=definition.supported_output_formats,
        )
        for name, definition in definitions.items()
    }


def _with_options(base: api_pb2.Function, options: api_pb2.FunctionOptions) -> api_pb2.Function:
    function = api_pb2.Function()
    function.CopyFrom(base)
    given = {field.name for field, _ in options.ListFields()}
    for name in {"resources", "retry_policy"} & given:
        getattr(function, name).CopyFrom(getattr(options, name))
    for name in {"timeout_secs", "max_concurrent_inputs", "target_concurrent_inputs"} & given:
        setattr(function, name, getattr(options, name))
    if options.HasField("concurrency_limit"):
        function.autoscaler_settings.max_containers = options.concurrency_limit
    if options.HasField("task_idle_timeout_secs"):
        function.autoscaler_settings.scaledown_window = options.task_idle_timeout_secs
    if options.secret_ids and options.replace_secret_ids:
        function.ClearField("secret_ids")
    function.secret_ids.extend(options.secret_ids)
    return function


def _same(one: Definition, other: Definition) -> bool:
    return one.serialized_params == other.serialized_params and bool(one.function == other.function)
