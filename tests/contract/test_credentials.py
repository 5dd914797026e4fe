"""Credentials, secrets and topics when their services answer wrongly, over real HTTP."""

import asyncio
import traceback
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from aiohttp import web

from stream.aws import session
from stream.aws.errors import AwsFatal, AwsRetryable
from stream.aws.identity import ask_caller
from stream.aws.secrets import read_secret
from stream.aws.session import AwsSession
from stream.aws.sns import look_at, publish
from stream.clock import SystemClock

KEY = "wJalrNEVERSHOWN"
"""What no log may hold; an answer that is cut short behind it cannot be read."""

CUT_SHORT = (
    "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIA1</AccessKeyId>"
    f"<SecretAccessKey>{KEY}"
)
NEVER = (0, "")
"""No answer, as long as the connection lives."""
TOPIC = "arn:aws:sns:us-east-1:111122223333:alarms"


@asynccontextmanager
async def answering(*answers):
    """The URL of a server that answers the n-th request with the n-th of ``answers`` (status and text), and later ones with the last."""
    left = list(answers)

    async def answer(request):
        await request.read()
        status, text = left.pop(0) if len(left) > 1 else left[0]
        if (status, text) == NEVER:
            await asyncio.Event().wait()
        return web.Response(status=status, text=text)

    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def refusal(code):
    return f'<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Code>{code}</Code><Message>why</Message></Error></ErrorResponse>'


@pytest.fixture
def pod(aws_env, monkeypatch, tmp_path):
    """A pod with a token and without keys."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "nowhere")
    (tmp_path / "token").write_text("head.claims.signature")
    return tmp_path / "token"


@pytest.fixture
def irsa(pod, monkeypatch):
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/flights")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(pod))


async def credentials(monkeypatch, variable, *answers):
    async with answering(*answers) as url:
        monkeypatch.setenv(variable, url)
        return await AwsSession(region="us-east-1").credentials()


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("ExpiredTokenException", AwsRetryable, "failed: ExpiredTokenException: why"),
        ("AccessDenied", AwsFatal, "was refused: AccessDenied: why. Remedy: let the trust policy of the role name who asks"),
        (
            "InvalidIdentityToken",
            AwsFatal,
            "was refused: InvalidIdentityToken: why. Remedy: give the pod a token for the audience sts.amazonaws.com",
        ),
    ],
)
def test_an_error_of_sts_is_reported_with_the_role_and_a_remedy(irsa, monkeypatch, code, kind, words):
    with pytest.raises(kind) as found:
        asyncio.run(credentials(monkeypatch, "AWS_ENDPOINT_URL_STS", (400, refusal(code))))
    assert f"sts:AssumeRoleWithWebIdentity on arn:aws:iam::111122223333:role/flights (region us-east-1, for credentials) {words}" in str(
        found.value
    )


@pytest.mark.parametrize("unreadable", ["gone", "no text"])
def test_a_token_file_that_cannot_be_read_is_named(irsa, pod, monkeypatch, unreadable):
    if unreadable == "gone":
        pod.unlink()
    else:
        pod.write_bytes(b"\xff\xfe")
    with pytest.raises(AwsRetryable, match=rf"^AWS credentials are not available: .*{pod}"):
        asyncio.run(credentials(monkeypatch, "AWS_ENDPOINT_URL_STS", (200, "")))


@pytest.mark.parametrize("answer", ["", "<html>a proxy</html>", CUT_SHORT])
def test_an_unreadable_answer_of_sts_is_retryable_and_never_shown(irsa, monkeypatch, capfd, answer):
    with pytest.raises(AwsRetryable, match=r"^AWS credentials are not available: the answer is not as documented") as found:
        asyncio.run(credentials(monkeypatch, "AWS_ENDPOINT_URL_STS", (200, answer)))
    assert KEY not in "".join(traceback.format_exception(found.value))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "answer", ["{}", "[]", '{"AccessKeyId":"a","SecretAccessKey":"b","Token":"c","Expiration":"2020-01-01T00:00:00Z"}']
)
def test_a_pod_identity_agent_that_gives_no_keys_is_retryable(pod, monkeypatch, answer):
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(pod))
    with pytest.raises(AwsRetryable, match=r"^AWS credentials are not available"):
        asyncio.run(credentials(monkeypatch, "AWS_CONTAINER_CREDENTIALS_FULL_URI", (200, answer)))


def keys(name, minutes):
    """What STS answers: keys that end in so many minutes."""
    ends = (SystemClock().now() + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return 200, (
        '<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult>'
        f"<Credentials><AccessKeyId>{name}</AccessKeyId><SecretAccessKey>{KEY}</SecretAccessKey><SessionToken>t</SessionToken>"
        f"<Expiration>{ends}</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    )


FAILURES = {
    "cut short": ((200, CUT_SHORT), "the answer is not as documented"),
    "refused": ((403, refusal("AccessDenied")), "AccessDenied: why. Remedy: let the trust policy"),
    "ended": (keys("ASIA2", -60), "those that were given have ended already; check this machine's clock"),
}


@pytest.mark.parametrize("minutes", [3, 12])
@pytest.mark.parametrize("failure", FAILURES)
def test_valid_keys_are_used_while_their_renewal_fails_and_nothing_is_printed(irsa, monkeypatch, capfd, failure, minutes):
    later, why = FAILURES[failure]

    async def many_times():
        async with answering(keys("ASIA1", minutes), later, keys("ASIA3", 60)) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
            session = AwsSession(region="us-east-1")
            found = [await session.credentials() for _ in range(20)]
            return found, await session.credential_life() if minutes == 3 and failure != "ended" else None

    found, life = asyncio.run(many_times())
    assert {each.access_key for each in found} == {"ASIA1"}, "STS is asked again and again"
    assert life is None or why in life.failure
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("pause", "used"), [(session._RENEWAL_PAUSE, "ASIA1"), (0.0, "ASIA3")])
def test_a_failed_renewal_is_repeated_after_a_pause(irsa, monkeypatch, pause, used):
    monkeypatch.setattr(session, "_RENEWAL_PAUSE", pause)

    async def three_times():
        async with answering(keys("ASIA1", 3), (403, refusal("AccessDenied")), keys("ASIA3", 60)) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
            asking = AwsSession(region="us-east-1")
            for _ in range(3):
                await asking.credential_life()
            return await asking.credentials()

    assert asyncio.run(three_times()).access_key == used


def test_valid_keys_are_given_at_once_while_nobody_answers(irsa, monkeypatch):
    async def twice():
        async with answering(keys("ASIA1", 3), NEVER) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
            session = AwsSession(region="us-east-1")
            async with asyncio.timeout(10):
                return [await session.credentials() for _ in range(20)]

    assert {each.access_key for each in asyncio.run(twice())} == {"ASIA1"}


def test_keys_are_renewed_in_the_background(irsa, monkeypatch):
    async def twice():
        async with answering(keys("ASIA1", 12), keys("ASIA2", 60)) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
            session = AwsSession(region="us-east-1")
            first = await session.credentials()
            life = await session.credential_life()
            return first, life, await session.credentials()

    first, life, second = asyncio.run(twice())
    assert (first.access_key, second.access_key, life.failure) == ("ASIA1", "ASIA2", "")
    assert second.expires == life.expires
    assert life.expires - first.expires > timedelta(minutes=40)


def test_keys_that_have_ended_when_they_come_are_laid_to_the_clock(irsa, monkeypatch):
    with pytest.raises(AwsRetryable, match="check this machine's clock"):
        asyncio.run(credentials(monkeypatch, "AWS_ENDPOINT_URL_STS", keys("ASIA1", -60)))


CALLS = {
    "sns:Publish on": lambda session: publish(session, TOPIC, "subject", "message"),
    "sns:GetTopicAttributes on": lambda session: look_at(session, TOPIC),
    "secretsmanager:GetSecretValue on": lambda session: read_secret(session, "prod/key"),
    "sts:GetCallerIdentity on": lambda session: ask_caller(session, SystemClock()),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("text", ["", "[]", "{}", f"<html>{KEY}</html>", f'{{"SecretString": "{KEY}', f"<A><B>{KEY}"])
def test_an_undocumented_answer_is_retryable(aws_env, call, text):
    async def run():
        async with answering((200, text)) as url:
            names = ("sns", "secretsmanager", "sts")
            await CALLS[call](AwsSession(region="us-east-1", endpoints=dict.fromkeys(names, url)))

    with pytest.raises(AwsRetryable, match=f"^{call} .* gave an answer that is not as documented") as found:
        asyncio.run(run())
    assert KEY not in "".join(traceback.format_exception(found.value))


@pytest.mark.parametrize("call", CALLS)
def test_credentials_refused_by_sts_are_reported_as_such_by_every_call(irsa, monkeypatch, call):
    async def run():
        async with answering((403, refusal("AccessDenied"))) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
            await CALLS[call](AwsSession(region="us-east-1"))

    with pytest.raises(AwsFatal, match=r"^sts:AssumeRoleWithWebIdentity on"):
        asyncio.run(run())


def test_a_skewed_clock_is_reported(aws_env):
    async def answer(request):
        await request.read()
        day = "Mon, 01 Jan 2024 00:00:00 GMT"
        return web.Response(status=403, text=refusal("SignatureDoesNotMatch"), headers={"Date": day})

    async def run():
        runner = web.ServerRunner(web.Server(answer))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            await ask_caller(AwsSession(region="us-east-1", endpoints={"sts": f"http://127.0.0.1:{runner.addresses[0][1]}"}), SystemClock())
        finally:
            await runner.cleanup()

    with pytest.raises(AwsFatal, match=r"this machine's clock is .* s off"):
        asyncio.run(run())
