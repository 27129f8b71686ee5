-- Sessions: which messages are executed (P1), and what sessions hold. The functions of src/transition/sessions.rs, in its order. `deliver_within` is in src/rules.rs.

session = part(function(session)
  -- P20 (roll-outs): whether a session's instance knows a deployment.
  function session.knows(id, deployment)
    local owner = sessions.known[id] or sessions:get(id)
    if not owner then return false end
    if #rules.configurations == 1 then return true end
    for _, known in ipairs(deployments:get(id) or {}) do
      if known == deployment then return true end
    end
    return false
  end

  -- Frees the slot of an open call, and the probe if it was one.
  function session.release(id, number, deployment)
    if not calls.remove(id, number, deployment) then return end
    local of = health.known[deployment]
    if of == nil then of = health:get(deployment) end
    if of and of.probe == number then
      of.probe = 0
      health:put(deployment, of)
    end
  end

  -- Puts a grant or a refusal into the inbox of a session, and wakes its owner.
  function session.add_to_inbox(id, item)
    local items = inbox:get(id) or {}
    items[#items + 1] = item
    inbox:put(id, items)
    local owner = sessions:get(id)
    if owner then group.wake(owner) end
  end

  -- P1 (sessions and replays): the cached answer again. A retransmission does not extend the session: otherwise an instance that receives no replies would keep its grants
  -- as long as it sends (A6).
  function session.replay(id)
    local answer = answers:get(id)
    if not answer then return SESSION_INVALID end
    return DONE, answer
  end

  -- P1 (sessions and replays): SESSION_INVALID or STALE; or DONE with the cached answer; or nil: the message is executed.
  function session.admit(replication)
    if message.epoch ~= state.epoch then
      if recovery.was_lost_since(message.epoch) then recovery.begin(replication) end
      return SESSION_INVALID
    end
    if message.open_session[1] then return opening.admit(message.open_session[1]) end
    local id = store.id(message.session)
    local own = sessions:get(id)
    if not own then return SESSION_INVALID end
    if message.batch == own.batch then return session.replay(id) end
    if message.batch < own.batch then return STALE end
    if own.unresponsive then return SESSION_INVALID end
    if message.batch > own.batch + 1 then
      -- A batch gap: this state lacks steps that were answered, so the group lost state (P3).
      recovery.begin(replication)
      return SESSION_INVALID
    end
    own.batch, own.seen = message.batch, state.lease
    step.own, step.id = own, id
  end

  function session.deliver_within() return floor(rules.lease / 5) end

  -- Delivers what the steps of other instances put into the sender's inbox.
  function session.deliver_inbox()
    local items = inbox:get(step.id)
    if not items then return end
    inbox:put(step.id, false)
    for _, item in ipairs(items) do
      if item.grant then
        step.grants[#step.grants + 1] = item.grant
      else
        step.refusals[#step.refusals + 1] = item.refusal
      end
    end
  end
end)

-- A part of its own, because few messages open a session.
opening = part(function(opening)
  function opening.admit(open_session)
    local known = group.instance(message.instance)
    if known.open_session >= 0 then
      local former = sessions:get(known.session)
      if open_session.number == known.open_session and former and former.batch == message.batch then return session.replay(known.session) end
      if open_session.number <= known.open_session then return STALE end
      if rules then
        ending.end_session(known.session, false)
        ending.settle_leftovers()
      end
    end
    step.id = store.id(group.draw())
    instances:put(message.instance, { open_session = open_session.number, session = step.id, departed = -1 })
    state.peers_version = state.peers_version + 1
    local configuration = configurations.learn(open_session.rules, open_session.rules_version)
    state.unsettled = true
    state.reap_at = min(state.reap_at, state.lease + group.reap_after(open_session.rules.lease))
    step.own = {
      instance = message.instance, batch = message.batch, seen = state.lease, former = known.session, unresponsive = false, peers_reported = 0,
      overrides_reported = 0, configuration = configuration, waiting = 0,
    }
    local names = {}
    for i, deployment in ipairs(open_session.rules.deployments) do names[i] = deployment.id end
    deployments:put(step.id, names)
  end
end)
