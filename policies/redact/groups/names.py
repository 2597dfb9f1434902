"""Names of services whose keys are bare rows of letters and digits: the name near by says what stands there.

Only names that are no words of their own: `box`, `line` or `linear` stand near too much else.
"""

from __future__ import annotations

from typing import Final

_SPELLED: Final = """
abstractapi abuseipdb accuweather adafruit adobe aeroworkflow airbrake airtable aiven alchemyapi algolia alibaba alienvault amadeus
amplitude anthropic anypoint apideck apiflash apify apilayer apollo appcues appdynamics appsflyer artifactory asana assemblyai
atlassian auth0 autodesk aviationstack azure bannerbear baremetrics baseten beamer betterstack binance bitbucket bitcoinaverage
bitfinex bitly bitmex bittrex blazemeter blocknative braintree brandfetch brevo browserstack bscscan buddyns budibase bugherd
bugsnag buildkite buttercms calendarific calendly capsulecrm censys cerebras chartmogul chatwork checkly circleci clarifai clearbit
clicksend clickup clockify cloudconvert cloudflare cloudinary cloudmersive cloudsmith codacy codeclimate codecov codemagic cohere
coinapi coinbase coinlayer coinlib coinmarketcap commercejs confluent contentful convertapi convertkit couchbase coveralls crowdin
cryptocompare currencylayer customerio dailymotion dandelion databricks databox datadog deepai deepgram deepl deepseek delighted
detectify diffbot digicert digitalocean discogs discord disqus docusign doppler dotdigital droneci dropbox duffel dwolla dynatrace
easypost edamam elasticemail elevenlabs endorlabs etherscan etsy eventbrite everhour exchangerate facebook faceplusplus fastforex
fastly figma finage finicity finnhub firebase firecrawl fixerio fleetbase flickr flightapi flutterwave formspree foursquare frameio
freshbooks freshdesk freshservice fullstory geckoboard geoapify geocodio getresponse github gitlab gitter glassnode gocardless
gocanvas grafana graphcms graphhopper gumroad gtmetrix happyscribe harvestapp hellosign helpscout heroku holidayapi honeybadger
honeycomb hubspot huggingface hunterio hypertrack imagekit imagga infura insightly instamojo intercom intrinio ipapi
ipdata ipgeolocation ipify ipinfo ipqualityscore ipstack jfrog jotform jumpcloud kairos kickbox klaviyo klipfolio kontent kraken
kucoin langfuse launchdarkly lemlist linkedin linkpreview livestorm locationiq loggly loginradius logzio lokalise
looker mailboxlayer mailchimp mailerlite mailgun mailjet mailmodo mailsac mandrill mapbox mapquest marketstack mattermost maxmind
mediastack meistertask meraki messagebird metabase mistral mixmax mixpanel mockaroo moonclerk moralis mparticle netlify neutrino
newrelic new_relic newsapi newscatcher nexmo ngrok nightfall numverify nutritionix nylas nytimes okta onelogin
onesignal openai opencage openrouter openuv openweather openweathermap opsgenie optimizely packagecloud pagarme pagerduty pandadoc
parsehub pastebin paymongo paypal paystack pepipost percy perplexity phrase pinata pinecone pipedream pipedrive pivotaltracker
pixabay plaid planetscale plivo poloniex polygonio positionstack posthog postmark prodpad proxycrawl pubnub pulumi
purestake pushbullet pusher pushover qubole quickbase rapidapi razorpay readme rebrandly ringcentral roboflow rocketreach rollbar
rubygems salesblink salesflare salesforce salesmate saucelabs scaleway scraperapi scrapestack scrapingant scrapingbee screenshotapi
securitytrails sendbird sendgrid sendinblue sentry serpapi serpstack shippo shodan shopify shotstack shutterstock signalwire
simfin sinch smartsheet smartystreets smooch snipcart snyk sonarcloud sonarqube sourcegraph sparkpost splunk
spoonacular sportmonks spotify squarespace stabilityai statuscake statuspage stitchdata storyblok stormglass strava stripe stytch
sumologic supabase surveysparrow swiftype tailscale tatum tavily taxjar teamcity telegram telnyx terraform tiingo
ticketmaster todoist toggl tomtom travisci travis_ci travis-ci trello twelvedata twilio twitch twitter typeform ubidots unsplash
uploadcare uptimerobot urlscan userstack vatlayer vercel virustotal visualcrossing vonage voiceflow vultr wakatime
walkscore weatherapi weatherbit weatherstack webflow wistia workday wrike yelp yousign zendesk zenrows zenscrape zenserp zeplin
zerobounce zerotier zipcodeapi zoho zulip
"""
NAMES: Final = tuple(sorted(set(_SPELLED.split())))
