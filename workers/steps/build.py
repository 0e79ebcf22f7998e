"""BUILD: a Triton model repository, and for target docker an image around it; both named by their content."""

import re
from pathlib import Path

from app.domain.digests import digest_bytes, digest_json, short
from app.domain.promotion import Done, Outcome, State
from app.packaging import render_config, write_docker_context, write_repository
from workers.context import Context


def run(context: Context) -> Outcome:
    """Write the repository into the store; the same inputs give the same digests at every try."""
    converted, store = context.step(State.CONVERT), context.plant.store
    target = context.policy.target
    kind = target.kind or context.plant.default_target
    config = render_config(context.model, converted["inputs"], converted["outputs"], target.instance, target.count)
    with context.scratch("build") as folder:
        write_repository(folder, context.model, store.file(converted["onnx"]), config)
        repository = store.put_tree(folder)
    name = _name(context, repository, kind)
    image = _image(context, store.tree(repository), name) if kind == "docker" else None
    return Done(
        {
            "name": name,
            "model": context.model,
            "target": kind,
            "instance": target.instance,
            "repository": repository,
            "config": digest_bytes(config.encode()),
            "image": image,
        }
    )


def _name(context: Context, repository: str, kind: str) -> str:
    # The promotion's id keeps a clean-up after one promotion from stopping what another one has started; the digest
    # keeps a later try from adopting what an earlier one made of other content.
    content = digest_json({"repository": repository, "kind": kind})
    readable = f"{context.model}-{context.environment}-v{context.version}".lower()
    readable = re.sub(r"[._-]+", "-", readable)[:80].strip("-")  # Docker takes no two separators side by side
    return f"headgate-{readable}-p{context.promotion_id}-{short(content)}"


def _image(context: Context, repository: Path, name: str) -> str:
    with context.scratch("image") as folder:
        instance = context.policy.target.instance
        write_docker_context(folder, repository, context.model, instance, context.plant.base_images[instance])
        return context.plant.builder.build(folder, f"{name}:{context.version}", {"headgate.release": name})
