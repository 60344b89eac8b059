// openai for Node where a server's limits are met: what it retries, when, and what it throws.
import OpenAI from "openai";

const [baseURL, requestsKey, dayKey] = process.argv.slice(2);
const question = {
  model: "tiny",
  messages: [{ role: "user", content: "Hello" }],
  max_tokens: 16,
};
let exchanges = [];

async function noted(url, options) {
  const response = await fetch(url, options);
  exchanges.push({
    status: response.status,
    at: performance.now() / 1000,
    "retry-after-ms": response.headers.get("retry-after-ms"),
  });
  return response;
}

async function useUp(client) {
  for (;;) {
    const refused = await refusal(client, { maxRetries: 0 });
    if (refused) return refused;
  }
}

async function refusal(client, options) {
  try {
    await client.chat.completions.create(question, options);
  } catch (error) {
    return { class: error.constructor.name, code: error.code };
  }
}

const client = new OpenAI({ baseURL, apiKey: requestsKey, fetch: noted });
const error = await useUp(client);
exchanges = [];
const answer = await client.chat.completions.create(question);
const found = { error, num_choices: answer.choices.length, exchanges: [...exchanges] };
const ofDay = new OpenAI({ baseURL, apiKey: dayKey, fetch: noted });
await useUp(ofDay);
exchanges = [];
found.day = { ...(await refusal(ofDay, {})), exchanges };
process.stdout.write(JSON.stringify(found));
