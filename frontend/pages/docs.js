"use strict";
const WORDS = {
  en: {
    filter: "Filter", language: "中文", theme: "Light / dark", request: "Request body",
    example: "Example", copy: "Copy", answers: "Answers", events: "Events of the stream",
    "default": "default", chars: "not empty", entries: "entries",
    optional: "the body may be left out", failed: "The description could not be read: ",
  },
  zh: {
    filter: "筛选", language: "English", theme: "浅色 / 深色", request: "请求体",
    example: "示例", copy: "复制", answers: "响应", events: "流中的事件",
    "default": "默认", chars: "不能为空", entries: "项",
    optional: "可以不带请求体", failed: "无法读取接口描述：",
  },
};
const TAGS_ZH = { "OpenAI surface": "OpenAI 接口", "Anthropic surface": "Anthropic 接口", "Native surface": "原生接口" };

const remembered = (key) => { try { return localStorage.getItem(key); } catch { return null; } };
const remember = (key, value) => { try { localStorage.setItem(key, value); } catch { /* private */ } };

let language = remembered("language") || (navigator.language.startsWith("zh") ? "zh" : "en");
let theme = remembered("theme") || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
let description = null;

const byId = (id) => document.getElementById(id);
const words = (key) => WORDS[language][key];

function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Text in which what stands between backticks is code. */
const withCode = (text) => text.split("`").map((part, i) => (i % 2 ? make("code", {}, part) : part));

const nameOf = (schema) => schema.$ref && schema.$ref.split("/").pop();
const resolve = (schema) => (schema.$ref ? description.components.schemas[nameOf(schema)] : schema);
const inWords = (item, key) => (language === "zh" && item[`x-${key}-zh`]) || item[key] || "";

/** The alternatives of a schema, one level of `anyOf` in another undone. */
const alternatives = (schema) => (schema.anyOf ? schema.anyOf.flatMap(alternatives) : [schema]);

function typeText(schema) {
  return alternatives(schema).map((one) => {
    if (one.$ref) return nameOf(one);
    if (one.enum) return one.enum.map((value) => JSON.stringify(value)).join(" | ");
    if ("const" in one) return JSON.stringify(one.const);
    if (one.type === "array") {
      const items = typeText(one.items || {});
      return items.includes(" | ") ? `(${items})[]` : `${items}[]`;
    }
    if (one.type === "object" && typeof one.additionalProperties === "object") {
      return `{string: ${typeText(one.additionalProperties)}}`;
    }
    return one.type || "any";
  }).join(" | ");
}

function limitTexts(schema) {
  return alternatives(schema).flatMap((one) => {
    const found = [];
    if ("minimum" in one || "maximum" in one) found.push(`${one.minimum ?? "−∞"} … ${one.maximum ?? "∞"}`);
    if (one.minLength) found.push(words("chars"));
    if ("minItems" in one || "maxItems" in one) {
      found.push(`${one.minItems ?? 0} … ${one.maxItems ?? "∞"} ${words("entries")}`);
    }
    if (one.items) found.push(...limitTexts(one.items).map((text) => `[ ${text} ]`));
    if (typeof one.additionalProperties === "object") found.push(...limitTexts(one.additionalProperties));
    return found;
  });
}

/** The named types that a schema mentions, at whatever depth short of other named types. */
function namedIn(schema) {
  return alternatives(schema).flatMap((one) => {
    if (one.$ref) return [one];
    return [one.items, one.additionalProperties]
      .filter((inner) => inner && typeof inner === "object").flatMap(namedIn);
  });
}

function fieldRow(name, schema, isRequired, seen) {
  const limits = limitTexts(schema);
  const hasDefault = "default" in schema && schema.default !== null;
  if (hasDefault) limits.push(`${words("default")} ${JSON.stringify(schema.default)}`);
  const inner = namedIn(schema).filter((one) => !seen.includes(nameOf(one)));
  return make("tr", {},
    make("td", {}, make("span", { class: isRequired ? "name required" : "name" }, name)),
    make("td", {}, make("code", {}, typeText(schema)),
      ...limits.map((text) => make("div", { class: "dim" }, text))),
    make("td", {}, ...withCode(inWords(schema, "description")), ...inner.map((one) => typeDetails(one, seen))));
}

function fieldTable(schema, seen) {
  const required = schema.required || [];
  return make("table", {}, ...Object.entries(schema.properties || {}).map(
    ([name, field]) => fieldRow(name, field, required.includes(name), seen)));
}

/** A named type that shows its fields when it is opened: made then, for types may be deep. */
function typeDetails(schema, seen) {
  const name = nameOf(schema);
  const details = make("details", {}, make("summary", {}, make("code", {}, name || typeText(schema))));
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) {
      const type = resolve(schema);
      if (type.description) details.append(make("div", { class: "dim" }, ...withCode(type.description)));
      details.append(fieldTable(type, [...seen, name]));
    }
  });
  return details;
}

function curl(path, method, operation) {
  const lines = [`curl ${location.origin}${path}`];
  if (method !== "get") lines[0] += ` -X ${method.toUpperCase()}`;
  const media = operation.requestBody && operation.requestBody.content["application/json"];
  if (media) {
    lines.push("-H 'Content-Type: application/json'");
    lines.push(`-d '${JSON.stringify(media.example || {}).replaceAll("'", "'\\''")}'`);
  }
  const text = lines.join(" \\\n  ");
  const copy = make("button", { type: "button" }, words("copy"));
  copy.addEventListener("click", () => navigator.clipboard && navigator.clipboard.writeText(text));
  return make("pre", {}, make("code", {}, text), copy);
}

/** What the data of a stream's events is, once parsed. */
const eventSchema = (data) => data.contentSchema || data.anyOf.find((one) => one.contentSchema).contentSchema;

function answerRow(status, answer) {
  const shown = Object.entries(answer.content || {}).flatMap(([media, { schema }]) => {
    const isStream = media === "text/event-stream";
    const types = namedIn(isStream ? eventSchema(schema.properties.data) : schema)
      .map((one) => typeDetails(one, []));
    const label = isStream ? `${media} · ${words("events")}` : media;
    return [make("div", { class: "dim" }, label), ...types];
  });
  return make("tr", {}, make("td", {}, make("span", { class: "name" }, status)),
    make("td", {}, ...shown), make("td", {}, ...withCode(inWords(answer, "description"))));
}

function operationSection(path, method, operation) {
  const section = make("section", { id: operation.operationId },
    make("h3", {}, make("span", { class: `method ${method}` }, method.toUpperCase()),
      make("span", { class: "name" }, path)),
    make("div", {}, inWords(operation, "summary")),
    make("h4", {}, words("example")), curl(path, method, operation));
  if (operation.requestBody) {
    const { schema } = operation.requestBody.content["application/json"];
    const note = operation.requestBody.required ? "" : ` (${words("optional")})`;
    section.append(make("h4", {}, `${words("request")} · ${nameOf(schema)}${note}`),
      fieldTable(resolve(schema), [nameOf(schema)]));
  }
  section.append(make("h4", {}, words("answers")), make("table", { class: "answers" },
    ...Object.entries(operation.responses).map(([status, answer]) => answerRow(status, answer))));
  return section;
}

/** In the order of their tags, as the contents list them. */
function allOperations() {
  const all = Object.entries(description.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, operation })));
  return description.tags.flatMap(({ name }) =>
    all.filter(({ operation }) => operation.tags[0] === name));
}

function show() {
  document.documentElement.lang = language;
  document.documentElement.dataset.theme = theme;
  byId("filter").placeholder = words("filter");
  byId("language").textContent = words("language");
  byId("theme").textContent = words("theme");
  if (!description) return;
  byId("version").textContent = `${description.info.version} · OpenAPI ${description.openapi}`;
  const wanted = byId("filter").value.trim().toLowerCase();
  const fields = (operation) => Object.keys(operation.requestBody
    ? resolve(operation.requestBody.content["application/json"].schema).properties : {});
  const found = allOperations().filter(({ path, method, operation }) =>
    [method, path, operation.summary, operation["x-summary-zh"], ...fields(operation)]
      .some((text) => (text || "").toLowerCase().includes(wanted)));
  const contents = description.tags.flatMap(({ name }) => [
    make("h2", {}, (language === "zh" && TAGS_ZH[name]) || name),
    ...found.filter(({ operation }) => operation.tags[0] === name).map(
      ({ path, method, operation }) => make("a", { href: `#${operation.operationId}` },
        make("span", { class: `method ${method}` }, method.toUpperCase()), path))]);
  byId("contents").replaceChildren(...contents);
  byId("operations").replaceChildren(...found.map(
    ({ path, method, operation }) => operationSection(path, method, operation)));
}

byId("filter").addEventListener("input", show);
byId("language").addEventListener("click", () => {
  language = language === "zh" ? "en" : "zh";
  remember("language", language);
  show();
});
byId("theme").addEventListener("click", () => {
  theme = theme === "dark" ? "light" : "dark";
  remember("theme", theme);
  show();
});
show();
fetch("openapi.json").then((answer) => answer.json()).then((found) => {
  description = found;
  show();
  if (location.hash) byId(location.hash.slice(1))?.scrollIntoView();
}).catch((error) => { byId("operations").textContent = words("failed") + error; });
