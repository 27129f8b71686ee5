-- Ends of sessions (P7), and grants that are not delivered in time (P10). Calls and grants of ended sessions are settled in parts (P16). The functions of
-- src/transition/ending.rs, in its order.

ending = part(function(ending)
  -- Refunds undelivered grants of a session, at most `most`. Returns how many grants and refusals it removed.
  local function refund_inbox(id, most)
    local items = inbox:get(id) or {}
    local removed, charges = min(#items, most), {}
    for i = 1, removed do
      if items[i].grant then charges[#charges + 1], charges[#charges + 2] = windows.GRANT, items[i].grant[FIELD_grant_granted] end
    end
    windows.fetch(charges)
    for i = 1, removed do
      local granted = items[i].grant
      if granted then
        session.release(id, granted[FIELD_grant_granted], granted[FIELD_grant_deployment])
        windows.refund(granted[FIELD_grant_granted])
      end
    end
    local rest = {}
    for i = removed + 1, #items do rest[#rest + 1] = items[i] end
    if removed > 0 then inbox:put(id, #rest > 0 and rest) end
    return removed
  end

  -- Releases open calls of an ended session, at most `most`, and returns how many. P8 (dispatch report): unreported dispatches were made before the session's end, or
  -- never will be (P9).
  local function release_calls(id, ended, most)
    local open, charges = calls.first_of(id, most), {}
    for i, of in ipairs(open) do charges[2 * i - 1], charges[2 * i] = windows.GRANT, of.number end
    windows.fetch(charges)
    for _, of in ipairs(open) do
      windows.assume_dispatched(of.number, ended)
      session.release(id, of.number, of.deployment)
    end
    return #open
  end

  -- Settles calls and grants of ended sessions, at most MAX_SETTLED in one step (P16). Until then a call counts as open and its charge stays: too much rather than too
  -- little.
  function ending.settle_leftovers()
    while state.leftovers[1] do
      local of = state.leftovers[1]
      step.settled = step.settled + refund_inbox(of.session, MAX_SETTLED - step.settled)
      if of.ended >= 0 and step.settled < MAX_SETTLED then step.settled = step.settled + release_calls(of.session, of.ended, MAX_SETTLED - step.settled) end
      if step.settled == MAX_SETTLED then break end
      table.remove(state.leftovers, 1)
    end
    if state.leftovers[1] then step.more = true end
  end

  -- Forgets instances that departed longer ago than the charge log reaches back.
  local function forget_departed()
    for name, known in pairs(instances:all()) do
      if known and known.departed >= 0 and known.departed + rules.memory <= state.clock then instances:put(name, false) end
    end
  end

  -- Ends a session: its queue entries are orphaned. `settle_leftovers` refunds its undelivered grants and releases its open calls.
  function ending.end_session(id, departed)
    local ended = sessions:get(id)
    if not ended then return end
    sessions:put(id, false)
    answers:put(id, false)
    deployments:put(id, false)
    state.peers_version = state.peers_version + 1
    state.unsettled = true
    state.leftovers[#state.leftovers + 1] = { session = id, ended = state.clock }
    state.orphans = state.orphans + ended.waiting
    if not departed then return end
    group.set_departed(ended.instance, state.clock)
    forget_departed()
  end

  -- The sender closes its session. `clean`: no charge of the sender counts any more (P11).
  function ending.close_session(clean)
    ending.end_session(step.id, not clean)
    ending.settle_leftovers()
    local known = group.instance(message.instance)
    if clean then instances:put(message.instance, known.departed >= 0 and { open_session = -1, session = '', departed = known.departed } or false) end
  end

  -- P7 (lease clock): ends the sessions that have sent nothing for too long.
  function ending.reap()
    local after, dead = group.reap_after(rules.lease), {}
    state.reap_at = NEVER
    for id, owner in pairs(sessions:all()) do
      if owner and id ~= step.id and owner.seen + after < state.lease then
        dead[#dead + 1] = id
      elseif owner then
        state.reap_at = min(state.reap_at, owner.seen + after)
      end
    end
    table.sort(dead)
    for _, id in ipairs(dead) do ending.end_session(id, true) end
  end

  -- P10 (delivery deadline): revokes grants that were not delivered in time. Their session is unresponsive then.
  function ending.revoke_undelivered()
    local within, late = session.deliver_within(), {}
    state.revoke_at = NEVER
    for id, items in pairs(inbox:all()) do
      local since, owner = NEVER, sessions:get(id)
      -- Grants of a session that is unresponsive or has ended are revoked already.
      if owner and not owner.unresponsive then
        for _, item in ipairs(items or {}) do since = min(since, item.since or NEVER) end
      end
      if id ~= step.id and since + within < state.lease then
        state.orphans = state.orphans + owner.waiting
        owner.unresponsive, owner.waiting = true, 0
        sessions:put(id, owner)
        late[#late + 1] = id
      elseif since < NEVER then
        state.revoke_at = min(state.revoke_at, since + within)
      end
    end
    table.sort(late)
    for _, id in ipairs(late) do state.leftovers[#state.leftovers + 1] = { session = id, ended = -1 } end
  end
end)
