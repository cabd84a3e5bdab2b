// Accounts: a name, a salted hash of a password, and the user of the node that goes with
// them. They are kept in one file, which is written anew with each change.
const { randomBytes, scrypt, timingSafeEqual } = require('node:crypto');
const { mkdirSync, readFileSync, renameSync, writeFileSync } = require('node:fs');
const path = require('node:path');
const { promisify } = require('node:util');

const most = 1000; // accounts
const cost = { N: 2 ** 15, r: 8, p: 3, maxmem: 64 * 2 ** 20 }; // 32 MB and a good tenth of a second
const sameName = (name) => name.toLowerCase();

class Accounts {
  #file;
  #byName = new Map();
  #hashing = 0;

  constructor(file) {
    this.#file = file;
    try {
      for (const a of JSON.parse(readFileSync(file))) this.#byName.set(sameName(a.name), a);
    } catch (err) {
      if (err.code !== 'ENOENT') throw err;
    }
  }

  // create makes an account, or says in an error with a status why not.
  async create(name, password) {
    if (!/^[\p{L}\p{N}][\p{L}\p{N} ._-]{0,31}$/u.test(name)) throw refusal(400, 'A name has 1 to 32 letters, digits, spaces, dots, dashes and underscores.');
    if (password.length < 8 || password.length > 200) throw refusal(400, 'A password has 8 to 200 characters.');
    const salt = randomBytes(16);
    const hash = await this.#hash(password, salt);
    if (this.#byName.has(sameName(name))) throw refusal(409, 'That name is taken.');
    if (this.#byName.size >= most) throw refusal(503, 'There are as many accounts as this service keeps.');
    const account = { name, salt: salt.toString('base64'), hash: hash.toString('base64') };
    this.#byName.set(sameName(name), account);
    this.save();
    return account;
  }

  // check returns the account whose name and password these are. A name that nobody has
  // takes as long as a wrong password, so that the time tells nobody's name.
  async check(name, password) {
    const account = this.#byName.get(sameName(name));
    const hash = await this.#hash(password, Buffer.from(account?.salt ?? '', 'base64'));
    if (!account || !timingSafeEqual(hash, Buffer.from(account.hash, 'base64'))) throw refusal(401, 'Name or password is wrong.');
    return account;
  }

  byUser(userId) {
    for (const a of this.#byName.values()) if (a.userId === userId) return a;
  }

  has(account) { return this.#byName.get(sameName(account.name)) === account; }

  remove(account) {
    this.#byName.delete(sameName(account.name));
    this.save();
  }

  save() {
    mkdirSync(path.dirname(this.#file), { recursive: true, mode: 0o700 });
    writeFileSync(`${this.#file}.new`, JSON.stringify([...this.#byName.values()], null, 2), { mode: 0o600 });
    renameSync(`${this.#file}.new`, this.#file); // all of it or nothing
  }

  async #hash(password, salt) {
    if (this.#hashing >= 4) throw refusal(503, 'Too many people sign in right now. Try again.');
    this.#hashing++;
    try {
      return await promisify(scrypt)(password.normalize('NFC'), salt, 32, cost);
    } finally {
      this.#hashing--;
    }
  }
}

// refusal is an error that whoever asked may read.
const refusal = (status, message) => Object.assign(new Error(message), { status });

module.exports = { Accounts, refusal };
