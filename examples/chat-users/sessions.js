// Who is signed in: a random number in a cookie stands for an account. Sessions are kept
// in memory, so a restart of the service signs everybody out.
const { randomBytes } = require('node:crypto');

const lifetime = 7 * 24 * 60 * 60 * 1000;
const mostOfAnAccount = 10; // then the oldest ends

class Sessions {
  #byId = new Map(); // the latest last

  // begin starts a session of account and returns its id.
  begin(account) {
    this.#expire();
    const ids = this.#of(account);
    if (ids.length >= mostOfAnAccount) this.#byId.delete(ids[0]);
    const id = randomBytes(32).toString('base64url');
    this.#byId.set(id, { account, ends: Date.now() + lifetime });
    return id;
  }

  account(id) {
    const s = this.#byId.get(id);
    return s?.ends > Date.now() ? s.account : undefined;
  }

  end(id) { this.#byId.delete(id); }

  // endAll ends all sessions of account, and returns what takes one of them back.
  endAll(account) {
    const ended = new Map(this.#of(account).map((id) => [id, this.#byId.get(id)]));
    for (const id of ended.keys()) this.#byId.delete(id);
    return (id) => this.#byId.set(id, ended.get(id));
  }

  #of(account) {
    return [...this.#byId].filter(([, s]) => s.account === account).map(([id]) => id);
  }

  #expire() {
    for (const [id, s] of this.#byId) if (s.ends <= Date.now()) this.#byId.delete(id);
  }
}

// Tries allows so many tries a minute to whoever makes them.
class Tries {
  #most;
  #made = new Map();
  #minute = 0;

  constructor(most) { this.#most = most; }

  allow(who) {
    const minute = Math.floor(Date.now() / 60_000);
    if (minute !== this.#minute) {
      this.#minute = minute;
      this.#made.clear();
    }
    const made = (this.#made.get(who) ?? 0) + 1;
    if (made > this.#most || (made === 1 && this.#made.size >= 10_000)) return false;
    this.#made.set(who, made);
    return true;
  }
}

module.exports = { Sessions, Tries, lifetime };
