"""Keys that can be told by themselves: a prefix, an alphabet, a length. One line a format.

Sources: the services' own documentation of their key formats, and GitHub's list of secret scanning patterns
(docs.github.com/code-security/secret-scanning).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from policies.redact.checks import classes, json_segment
from policies.redact.detector import Check, Detector, Hit, Verdict

_W: Final = "[A-Za-z0-9_-]"
_AN: Final = "[A-Za-z0-9]"
_UUID: Final = "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"

#: name, pattern; the whole match is the key unless a group is given, which then is the key.
TABLE: Final = (
    # models
    ("openai_key", rf"\bsk-(?:[a-z]{{2,12}}-)?{_W}{{10,120}}T3BlbkFJ{_W}{{10,120}}"),
    ("anthropic_key", rf"\bsk-ant-(?:[a-z]{{2,8}}\d{{2}}-)?{_W}{{20,120}}"),
    ("openrouter_key", r"\bsk-or-(?:v1-)?[0-9a-f]{32,64}\b"),
    ("huggingface_token", rf"\b(?:hf|api_org)_{_AN}{{30,40}}\b"),
    ("groq_key", rf"\bgsk_{_AN}{{40,60}}\b"),
    ("xai_key", rf"\bxai-{_AN}{{70,90}}\b"),
    ("perplexity_key", rf"\bpplx-{_AN}{{40,60}}\b"),
    ("replicate_token", rf"\br8_{_AN}{{37,40}}\b"),
    ("fireworks_key", rf"\bfw_{_AN}{{22,40}}\b"),
    ("nvidia_key", rf"\bnvapi-{_W}{{60,70}}"),
    ("langsmith_key", r"\blsv2_(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{10}\b"),
    ("langfuse_key", rf"\b[sp]k-lf-{_UUID}\b"),
    ("tavily_key", rf"\btvly-(?:dev-|prod-)?{_AN}{{20,40}}\b"),
    ("elevenlabs_key", r"\bsk_[0-9a-f]{48}\b"),
    ("deepseek_key", r"\bsk-[0-9a-f]{32}\b"),
    ("sk_key", rf"\bsk-{_AN}{{40,64}}\b"),
    ("pinecone_key", rf"\bpcsk_{_W}{{50,80}}"),
    ("wandb_key", rf"\bwandb_v1_{_W}{{40,90}}"),
    # clouds
    ("aws_access_key", r"\b(?:A3T[A-Z0-9]|ABIA|ACCA|AKIA|ASIA|AROA|AIDA|AGPA|ANPA|APKA)[A-Z0-9]{16}\b"),
    ("aws_mws_key", rf"\bamzn\.mws\.{_UUID}\b"),
    ("aws_bedrock_key", r"\bABSK[A-Za-z0-9+/]{60,300}={0,2}|\bbedrock-api-key-YmVkcm9jay[A-Za-z0-9+/=]{20,400}"),
    ("google_key", rf"\bAIza{_W}{{35}}"),
    ("google_oauth", rf"\bGOCSPX-{_W}{{28}}|\bya29\.{_W}{{20,300}}|\b1//0{_W}{{30,120}}"),
    ("google_client_id", r"\b\d{8,21}-[0-9a-z]{32}\.apps\.googleusercontent\.com\b"),
    ("azure_ad_secret", r"\b[A-Za-z0-9_~.]{3}\dQ~[A-Za-z0-9_~.-]{31,34}"),
    ("azure_storage_key", r"\b[A-Za-z0-9+/]{86}=="),
    ("azure_devops_token", rf"\b{_AN}{{76}}AZDO{_AN}{{4}}\b"),
    ("azure_service_key", rf"\b{_AN}{{33,80}}(?:AzSe|ACDb|AzFu|APIM|ACR|AIoT|ASbE|AEhS)[A-Za-z0-9+/]{{5,8}}={{0,2}}"),
    ("alibaba_key", rf"\bLTAI{_AN}{{12,22}}\b"),
    ("tencent_key", rf"\bAKID{_AN}{{32}}\b"),
    ("digitalocean_token", r"\bdo[opr]_v1_[0-9a-f]{64}\b"),
    ("scaleway_key", r"\bSCW[A-Z0-9]{17}\b"),
    ("ibm_cloud_key", r"(?i)\b(?:[\w.-]{0,20}(?:ibm|iam|cloud|bx)[\w.-]{0,20})?(?:api|platform)?[_-]?(?:key|pwd|password|pass"
                      r"|token)[\"']?[ \t]{0,3}(?::=|=|:)[=]?[ \t]{0,3}[\"']?([A-Za-z0-9_-]{44})(?:[^\w-]|$)"),
    ("ibm_cos_key", r"(?i)\b[\w.-]{0,24}(?:access|key)[\w.-]{0,12}[\"'\]]{0,2}[ \t]{0,3}(?::=|=|:)=?[ \t]{0,3}[\"']?"
                    r"([0-9a-f]{32}|[0-9a-f]{48})\b"),
    ("softlayer_key", r"(?i)\b(?:[\w-]{0,12}softlayer|sl)[_-]?(?:api)?[_-]?(?:key|pwd|password|pass|token)[\"']?[ \t]{0,3}(?::=|=|:)?=?"
                      r"[ \t]{0,3}[\"']?([a-z0-9]{64})\b|\bapi\.softlayer\.com/soap/v3(?:\.1)?/([a-z0-9]{64})\b"),
    ("cloudant_key", r"(?i)\b(?:[\w-]{0,12}cloudant|clou|cl)[\w-]{0,12}(?:key|pwd|pw|password|pass|token)[\"']?[ \t]{0,3}(?::=|=|:)=?"
                     r"[ \t]{0,3}[\"']?([0-9a-f]{64}|[a-z]{24})\b"),
    ("cloudflare_key", r"\bv1\.0-[0-9a-f]{24}-[0-9a-f]{146}\b|\bcf(?:ut|at|k|oat)_[A-Za-z0-9]{40,60}\b"),
    ("heroku_key", rf"\bHRKU-(?:AA{_W}{{58}}|{_UUID})"),
    ("fly_token", r"\bfo1_[\w-]{43}|\bfm[12][ar]?_[A-Za-z0-9+/]{60,600}={0,3}|\bFlyV1 fm\d_[A-Za-z0-9+/=,_]{60,900}"),
    ("vercel_token", rf"\bvc[pikar]_{_W}{{24,80}}|\bvercel_blob_rw_{_W}{{30,60}}"),
    ("netlify_token", rf"\bnf[pcouba]_{_AN}{{36,50}}\b"),
    ("supabase_key", rf"\bsbp_[0-9a-f]{{40}}\b|\bsb_(?:secret|publishable)_{_W}{{20,50}}"),
    ("planetscale_key", r"\bpscale_(?:tkn|pw|oauth)_[\w=.-]{32,64}"),
    ("databricks_token", r"\bdapi[0-9a-f]{32}(?:-\d)?\b"),
    ("mongodb_atlas_key", rf"\bmdb_sa_sk_{_W}{{30,50}}"),
    ("terraform_token", rf"\b{_AN}{{14}}\.atlasv1\.[A-Za-z0-9_=-]{{60,70}}"),
    ("vault_token", rf"\bhv[sbr]\.{_W}{{24,300}}|\b[sbr]\.{_AN}{{24}}\b"),
    ("pulumi_token", r"\bpul-[0-9a-f]{40}\b"),
    ("doppler_token", rf"\bdp\.(?:pt|st|ct|sa|scim|audit)\.(?:[a-z0-9_-]{{2,35}}\.)?{_AN}{{40,44}}\b"),
    ("infisical_token", r"\bst\.[0-9a-f]{24}\.[0-9a-f]{32}\.[0-9a-f]{32}\b"),
    ("onepassword_token", r"\bops_eyJ[A-Za-z0-9+/_-]{200,900}={0,3}|\bA3-[A-Z0-9]{6}-(?:[A-Z0-9]{6}-[A-Z0-9]{5}|[A-Z0-9]{11})"
                          r"(?:-[A-Z0-9]{5}){3}\b"),
    ("age_key", r"\bAGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}\b"),
    ("openshift_token", rf"\bsha256~{_W}{{43}}"),
    ("kubeadm_token", r"\b[a-z0-9]{6}\.[a-z0-9]{16}\b"),
    # code
    ("github_token", rf"\bgh[pousr]_{_AN}{{36,255}}\b|\bgithub_pat_\w{{36,255}}\b"),
    ("gitlab_token", rf"\b(?:gl(?:pat|dt|ft|soat|rt|rtr|cbt|imt|ptt|agent|oas|ffct|wt)|_gitlab_session)[-=]{_W}{{20,130}}"
                     rf"(?:\.[0-9a-z]{{2}}\.[0-9a-z]{{9}})?|\bGR1348941{_W}{{20,60}}"),
    ("bitbucket_token", rf"\bATBB{_AN}{{32}}\b|\bATCTT3xFfG{_W}{{50,250}}=[0-9A-F]{{8}}\b"),
    ("atlassian_token", rf"\bATATT3{_W}{{50,250}}(?:=[0-9A-F]{{8}})?"),
    ("npm_token", rf"\bnpm_{_AN}{{36}}\b"),
    ("npmrc_token", rf"//[\w.-]{{1,100}}(?:/[\w./-]{{0,60}})?/:_authToken=[ \t]{{0,4}}(npm_\w{{4,60}}|{_UUID}|[\w./+=-]{{20,200}})"),
    ("pypi_token", rf"\bpypi-AgE(?:IcHlwaS5vcmc|NdGVzdC5weXBpLm9yZw){_W}{{70,400}}"),
    ("rubygems_key", r"\brubygems_[0-9a-f]{48}\b"),
    ("crates_token", rf"\bcio{_AN}{{32}}\b"),
    ("nuget_key", r"\boy2[a-z0-9]{43}\b"),
    ("clojars_token", r"\bCLOJARS_[0-9a-z]{60}\b"),
    ("docker_token", rf"\bdckr_(?:pat|oat)_{_W}{{27,40}}"),
    ("jfrog_key", rf"\bAKC{_AN}{{10,90}}\b|\bAP[0-9A-F]{_AN}{{8,90}}\b|\bcmVmd{_AN}{{59}}\b"),
    ("sonar_token", r"\bsq[apu]_[0-9a-f]{40}\b"),
    ("circleci_token", rf"\bCCIP(?:AT|RJ)_{_AN}{{18,26}}_[0-9a-f]{{40}}\b"),
    ("buildkite_token", rf"\bbk[a-z]{{2}}_{_AN}{{32,48}}\b"),
    ("postman_key", r"\bPMAK-[0-9a-f]{24}-[0-9a-f]{34}\b"),
    ("readme_key", r"\brdme_[a-z0-9]{70}\b"),
    ("sourcegraph_token", r"\bsgp_(?:[0-9a-fA-F]{16}_|local_)?[0-9a-fA-F]{40}\b"),
    ("figma_token", rf"\bfig[dour]h?_{_W}{{40,60}}"),
    ("expo_token", rf"\bexpo_{_AN}{{32,50}}\b"),
    ("prefect_key", rf"\bpn[ub]_{_AN}{{36}}\b"),
    ("snyk_token", r"\bsnyk_(?:uat|sat)\.[0-9a-f]{8}\.[\w.-]{60,300}"),
    ("stackhawk_key", rf"\bhawk\.{_W}{{20}}\.{_W}{{20}}"),
    ("tailscale_key", rf"\btskey-[a-z]{{3,10}}-{_AN}{{10,24}}(?:-{_AN}{{16,48}})?\b"),
    ("ngrok_token", rf"\b(?:2[A-Za-z0-9]{{26}}|ak_2[A-Za-z0-9]{{26}})_{_AN}{{20,22}}\b"),
    # messages, mail
    ("slack_token", r"(?i)\bxox[a-z](?:\.xox[a-z])?-(?:[0-9]{1,15}-){0,4}[a-z0-9-]{10,200}\b|\bxapp-\d-[A-Z0-9]{6,14}-\d{6,16}-[a-z0-9]{30,80}"
                    r"|\bxwfp-[a-z0-9-]{20,120}"),
    ("slack_webhook", r"\bhooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/_]{20,100}"),
    ("discord_token", rf"\b[MNO]{_W}{{23,25}}\.{_W}{{6}}\.{_W}{{27,40}}"),
    ("discord_webhook", rf"\bdiscord(?:app)?\.com/api/webhooks/\d{{17,20}}/{_W}{{60,72}}"),
    ("teams_webhook", rf"\b[a-z0-9-]{{2,60}}\.webhook\.office\.com/webhookb2/{_UUID}@{_UUID}/[A-Za-z]{{3,30}}/[0-9a-f]{{32}}/{_UUID}"),
    ("telegram_token", rf"\b\d{{8,10}}:A{_W}{{34}}|\bapi\.telegram\.org/bot(\d{{5,16}}:{_W}{{34,36}})"),
    ("twilio_key", r"\b(?:SK|AC)[0-9a-z]{32}\b"),
    ("sendgrid_key", rf"\bSG\.{_W}{{16,32}}\.{_W}{{32,64}}"),
    ("mailgun_key", r"\bkey-[0-9a-z]{32}\b|\bpubkey-[0-9a-f]{32}\b|\b[0-9a-f]{32}-[0-9a-f]{8}-[0-9a-f]{8}\b"),
    ("mailchimp_key", r"\b[0-9a-f]{32}-us\d{1,2}\b"),
    ("brevo_key", rf"\bx(?:keysib|smtpsib)-[0-9a-f]{{64}}-{_AN}{{16}}\b"),
    ("resend_key", r"\bre_[A-Za-z0-9]{8}_[A-Za-z0-9]{20,28}\b"),
    ("intercom_token", r"\bdG9rO[A-Za-z0-9+/]{40,80}={0,2}"),
    ("frame_io_token", r"\bfio-u-[A-Za-z0-9_=-]{64}"),
    # money, shops
    ("stripe_key", rf"\b[sr]k_(?:live|test|prod)_{_AN}{{10,255}}\b|\bwhsec_[A-Za-z0-9+/]{{24,64}}={{0,2}}"),
    ("square_key", rf"\bsq0(?:atp|csp|idp|ids)-[A-Za-z0-9_\\-]{{22,43}}|\bEAAA{_W}{{56,60}}"),
    ("paypal_token", r"\baccess_token\$(?:production|sandbox)\$[0-9a-z]{16}\$[0-9a-f]{32}\b"),
    ("shopify_token", r"\bshp(?:at|ca|pa|ss|rt)_[0-9a-fA-F]{32}\b"),
    ("flutterwave_key", r"(?i)\bFLW(?:SECK|PUBK)(?:_TEST)?-[a-h0-9]{12,32}(?:-X)?\b"),
    ("razorpay_key", rf"\brzp_(?:live|test)_{_AN}{{14}}\b"),
    ("plaid_token", rf"\baccess-(?:sandbox|development|production)-{_UUID}\b"),
    ("adyen_key", r"\bAQE[A-Za-z0-9+/=]{20,200}-[A-Za-z0-9+/=]{20,60}-[A-Za-z0-9+/=<>{}\[\]!.,;:*()&%$#@_~|-]{10,20}"),
    ("coinbase_key", rf"\borganizations/{_UUID}/apiKeys/{_UUID}\b"),
    ("easypost_key", rf"\bEZ[AT]K{_AN}{{54}}\b"),
    ("duffel_token", r"\bduffel_(?:test|live)_[A-Za-z0-9_=-]{43}"),
    ("shippo_token", r"\bshippo_(?:live|test)_[0-9a-fA-F]{40}\b"),
    ("lob_key", r"\b(?:live|test)_(?:pub_)?[0-9a-f]{35}\b|\b(?:live|test)_pub_[0-9a-f]{31}\b"),
    ("checkout_key", r"\bsk_(?:sbox_)?[a-z2-7]{26}[a-z2-7*#$=]\b"),
    # data, monitoring
    ("sentry_token", r"\bsntry[us]_[A-Za-z0-9+/=_-]{40,300}"),
    ("sentry_dsn", r"\bhttps?://[0-9a-f]{32}(?::[0-9a-f]{32})?@[\w.-]{4,80}/\d{1,20}\b"),
    ("grafana_token", r"\bgl(?:c|sa)_[A-Za-z0-9+/_]{30,400}={0,2}|\beyJrIjoi[A-Za-z0-9+/]{60,400}={0,3}"),
    ("newrelic_key", r"\bNR(?:AK|RA|BR|AA|JS|SP|II)-[A-Za-z0-9]{17,42}\b|\b[0-9a-f]{36}NRAL\b|\bNRJS-[0-9a-f]{19}\b"),
    ("dynatrace_token", r"\bdt0[a-z]\d{2}\.[A-Z0-9]{24}\.[A-Z0-9]{64}\b"),
    ("honeycomb_key", r"\bhc[abx](?:ik|lk|mk)_[a-z0-9]{50,64}\b"),
    ("datadog_key", r"\bdd(?:ak|pat|app)_[A-Za-z0-9]{30,50}\b"),
    ("elastic_key", r"\bessu_[A-Za-z0-9+/]{40,100}={0,2}"),
    ("confluent_key", r"\bcflt[A-Za-z0-9+/]{60}\b"),
    ("airtable_token", rf"\bpat{_AN}{{14}}\.[0-9a-f]{{64}}\b|\bkey{_AN}{{14}}\b"),
    ("notion_token", rf"\bntn_{_AN}{{40,50}}\b|\bsecret_{_AN}{{43}}\b"),
    ("linear_key", rf"\blin_(?:api|oauth)_{_AN}{{32,64}}\b"),
    ("asana_token", r"\b[12]/\d{12,20}(?:/\d{12,20})?:[0-9a-f]{32}\b"),
    ("clickup_token", r"\bpk_\d{5,9}_[A-Z0-9]{32}\b"),
    ("typeform_token", r"\btfp_[\w.=-]{40,64}"),
    ("mapbox_token", rf"\b[sp]k\.eyJ{_W}{{60,120}}\.{_W}{{22}}"),
    ("contentful_token", rf"\bCFPAT-{_W}{{43}}"),
    ("hubspot_token", rf"\bpat-(?:na|eu|ap)\d-{_UUID}\b"),
    ("facebook_token", rf"\bEAA[A-Z]{{1,4}}{_AN}{{30,250}}\b|\b\d{{13,17}}\|{_W}{{27,40}}"),
    ("twitter_token", r"\bAAAAAAAAAAAAAAAAAAAAA[A-Za-z0-9%]{60,110}"),
    ("dropbox_token", rf"\bsl\.{_W}{{120,152}}|\b{_AN}{{11}}AAAAAAAAAA[A-Za-z0-9_=-]{{43}}"),
    ("yandex_key", rf"\bAQVN{_W}{{35,38}}|\bt1\.[A-Z0-9a-z_-]{{4,200}}={{0,2}}\.[A-Za-z0-9_-]{{86}}={{0,2}}|\bYC{_W}{{38}}"),
    ("defined_key", r"\bdnkey-[a-z0-9=_-]{26}-[a-z0-9=_-]{52}"),
    ("jwt", rf"\beyJ{_W}{{8,}}\.eyJ{_W}{{4,}}(?:\.{_W}*)?"),
)  # fmt: skip


def _jwt(hit: Hit) -> Verdict:
    header, payload = hit.value.split(".")[:2]
    return json_segment(header) and json_segment(payload)


def _digit(hit: Hit) -> Verdict:
    lower, upper, digits, _ = classes(hit.value)
    return digits > 0 or (lower > 0 and upper > 0)


def _mixed(hit: Hit) -> Verdict:
    lower, upper, digits, _ = classes(hit.value)
    return digits > 1 and lower > 1 and upper > 1


def _no_word_after(hit: Hit) -> Verdict:
    return not (hit.after.isalnum() or hit.after == b"_")


_GITLAB_LENGTHS: Final[dict[str, Sequence[int]]] = {"glimt": (25,), "glptt": (40,), "gloas": (64,), "glpat": range(20, 51), "gldt": range(20, 51),
                          "glft": range(20, 51), "glsoat": range(20, 51), "glrt": range(20, 51), "glcbt": range(20, 24),
                          "glagent": range(50, 1025)}  # fmt: skip


def _gitlab(hit: Hit) -> Verdict:
    value = hit.value
    prefix, _, rest = value.replace("=", "-").partition("-")
    if value.startswith("GR1348941"):
        rest, prefix = value[9:], "glrt"
    lengths = _GITLAB_LENGTHS.get(prefix, range(20, 131))
    routable = "." in rest
    return (routable or len(rest) in lengths) and len(set(rest)) > 3 and _no_word_after(hit) is True


def _jfrog(hit: Hit) -> Verdict:
    value = hit.value
    lower, upper, digits, _ = classes(value)
    return lower > 0 and upper > 0 if value.startswith("AP") and digits < 2 else digits > 0 or lower > 0


def _kubeadm(hit: Hit) -> Verdict:
    return b"token" in hit.before[-40:].lower() and classes(hit.value)[2] > 2


def _either_group(hit: Hit) -> Verdict:
    for span in hit.spans[1:]:
        if span[0] >= 0:
            return span
    return True


def _vault(hit: Hit) -> Verdict:
    value = hit.value
    return value[0] == "h" or bool(
        re.search(r"\d", value[2:]) and re.search("[A-Z]", value) and re.search("[a-z]", value[2:])
    )


_CHECKS: Final[dict[str, Check]] = {
    "jwt": _jwt,
    "gitlab_token": _gitlab,
    "jfrog_key": _jfrog,
    "kubeadm_token": _kubeadm,
    "softlayer_key": _either_group,
    "ibm_cloud_key": _either_group,
    "ibm_cos_key": _either_group,
    "cloudant_key": _either_group,
    "npmrc_token": _either_group,
    "telegram_token": _either_group,
    "vault_token": _vault,
    "sk_key": _mixed,
    "airtable_token": _digit,
    "azure_ad_secret": _digit,
    "azure_service_key": _mixed,
    "facebook_token": _digit,
    "fireworks_key": _digit,
    "notion_token": _digit,
    "checkout_key": _digit,
    "dropbox_token": _digit,
    "alibaba_key": _digit,
    "crates_token": _digit,
    "google_key": _digit,
    "google_oauth": _digit,
}
#: Where the derived prefilter would be found too often.
_HINTS: Final = {
    "azure_storage_key": r"[A-Za-z0-9+/]==",
    "azure_service_key": r"AzSe|ACDb|AzFu|APIM|ACR|AIoT|ASbE|AEhS",
    "azure_ad_secret": r"\dQ~",
    "mailchimp_key": r"[0-9a-f]-us\d",
    "mailgun_key": r"\bkey-[0-9a-z]|pubkey-|[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]",
    "telegram_token": r"\d:A|telegram",
    "discord_token": r"[\w-]{12}\.[\w-]{6}\.[\w-]{8}",
    "facebook_token": r"\bEAA[A-Z]|\d\|[\w-]{12}",
    "newrelic_key": r"\bNR(?:AK|RA|BR|AA|JS|SP|II)-|NRAL",
    "dropbox_token": r"\bsl\.[\w-]{12}|AAAAAAAAAA",
    "teams_webhook": r"webhook\.office",
    "google_client_id": r"googleusercontent",
    "ibm_cloud_key": r"(?i)(?:key|pwd|pass|token|password)[\"']?[ \t]{0,3}[:=]=?[ \t]{0,3}[\"']?[\w-]{16}",
    "ibm_cos_key": r"(?i)\b[\w.-]{0,24}(?:access|key)[\w.-]{0,12}[\"'\]]{0,2}[ \t]{0,3}[:=]=?[ \t]{0,3}[\"']?[0-9a-f]{16}",
    "softlayer_key": r"(?i)softlayer|\bsl[_-]?(?:api|key|pwd|pass|token)",
    "cloudant_key": r"(?i)clou|\bcl[\w-]{0,12}(?:key|pw|pass|token)",
}
_WORDS: Final = {
    "aws_access_key": "[AWS_KEY]",
    "aws_mws_key": "[AWS_KEY]",
    "aws_bedrock_key": "[AWS_KEY]",
    "jwt": "[AUTH_TOKEN]",
    "slack_webhook": "[WEBHOOK_URL]",
    "discord_webhook": "[WEBHOOK_URL]",
    "teams_webhook": "[WEBHOOK_URL]",
}

DETECTORS: Final = tuple(
    Detector(name, pattern, group="secrets", replacement=_WORDS.get(name, "[API_KEY]"), priority=90,
             check=_CHECKS.get(name), hint=_HINTS.get(name, ""))
    for name, pattern in TABLE
)  # fmt: skip
