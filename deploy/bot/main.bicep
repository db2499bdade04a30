// Where the bot runs: a container app under its own managed identity, PostgreSQL that only it can reach, secrets in a key vault.
//
//   az deployment group create -g <group> -f deploy/bot/main.bicep -p image=<registry>.azurecr.io/callboard:<version> \
//     registryName=<registry> vaultName=<vault> workspaceName=<workspace> entraClientId=<id> databasePassword=<a long random one>
//
// Beforehand the vault (with Azure RBAC) holds slack-bot-token, slack-signing-secret, hooks-password, hooks-secret, entra-client-secret
// and callboard-keys, and with socketMode=true slack-app-token. Afterwards add the identity (output identityName) to Azure DevOps as a user of the project.

@description('Name of the app; what belongs to it is named after it.')
@minLength(3)
@maxLength(20)
param name string = 'callboard'
param location string = resourceGroup().location

@description('The bot\'s image, with its tag or digest.')
param image string
@description('The container registry that holds the image, in this resource group.')
param registryName string
@description('The key vault that holds the secrets, in this resource group.')
param vaultName string
@description('The Azure Machine Learning workspace that the bot reads, in this resource group.')
param workspaceName string

@description('Slack over Socket Mode: Slack needs no way in, and the vault holds slack-app-token.')
param socketMode bool = false
@description('User name that Azure DevOps sends with its service hooks.')
param hooksUsername string = 'azure-devops'

param databaseUser string = 'callboard'
@secure()
param databasePassword string

@description('The app registration that people sign in with: its application (client) ID. Its redirect URI is <url>/signin/callback.')
param entraClientId string

@description('Replicas share the database; one is enough for most teams.')
@minValue(1)
param replicas int = 1

var databaseName = 'callboard'
var roles = {
  acrPull: '7f951dda-4ed3-4680-a7ca-43fe172d538d'
  keyVaultSecretsUser: '4633458b-17de-408a-b874-0445c86b69e6'
  reader: 'acdd72a7-3385-48ef-bd42-f606fba81ae7'
}
var secretNames = concat(
  ['slack-bot-token', 'slack-signing-secret', 'hooks-password', 'hooks-secret', 'entra-client-secret', 'callboard-keys', 'database-url'],
  socketMode ? ['slack-app-token'] : []
)

resource registry 'Microsoft.ContainerRegistry/registries@2023-07-01' existing = {
  name: registryName
}

resource vault 'Microsoft.KeyVault/vaults@2023-07-01' existing = {
  name: vaultName
}

resource workspace 'Microsoft.MachineLearningServices/workspaces@2024-04-01' existing = {
  name: workspaceName
}

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: name
  location: location
}

resource mayPull 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: registry
  name: guid(registry.id, identity.id, roles.acrPull)
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.acrPull)
  }
}

resource mayReadSecrets 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: vault
  name: guid(vault.id, identity.id, roles.keyVaultSecretsUser)
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.keyVaultSecretsUser)
  }
}

resource mayReadModels 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: workspace
  name: guid(workspace.id, identity.id, roles.reader)
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.reader)
  }
}

resource network 'Microsoft.Network/virtualNetworks@2024-01-01' = {
  name: name
  location: location
  properties: {
    addressSpace: { addressPrefixes: ['10.20.0.0/16'] }
    subnets: [
      {
        name: 'apps'
        properties: {
          addressPrefix: '10.20.0.0/23'
          delegations: [{ name: 'apps', properties: { serviceName: 'Microsoft.App/environments' } }]
        }
      }
      {
        name: 'database'
        properties: {
          addressPrefix: '10.20.2.0/28'
          delegations: [{ name: 'database', properties: { serviceName: 'Microsoft.DBforPostgreSQL/flexibleServers' } }]
        }
      }
    ]
  }

  resource apps 'subnets' existing = {
    name: 'apps'
  }

  resource database 'subnets' existing = {
    name: 'database'
  }
}

resource zone 'Microsoft.Network/privateDnsZones@2020-06-01' = {
  name: '${name}.private.postgres.database.azure.com'
  location: 'global'

  resource link 'virtualNetworkLinks' = {
    name: name
    location: 'global'
    properties: {
      registrationEnabled: false
      virtualNetwork: { id: network.id }
    }
  }
}

resource server 'Microsoft.DBforPostgreSQL/flexibleServers@2024-08-01' = {
  name: '${name}-${uniqueString(resourceGroup().id)}'
  location: location
  sku: { name: 'Standard_B1ms', tier: 'Burstable' }
  properties: {
    version: '16'
    administratorLogin: databaseUser
    administratorLoginPassword: databasePassword
    storage: { storageSizeGB: 32, autoGrow: 'Enabled' }
    backup: { backupRetentionDays: 14, geoRedundantBackup: 'Disabled' }
    network: {
      delegatedSubnetResourceId: network::database.id
      privateDnsZoneArmResourceId: zone.id
    }
  }
  dependsOn: [zone::link]

  resource database 'databases' = {
    name: databaseName
    properties: { charset: 'UTF8', collation: 'en_US.utf8' }
  }
}

// The bot finds its database's password where it finds its other secrets.
resource databaseUrl 'Microsoft.KeyVault/vaults/secrets@2023-07-01' = {
  parent: vault
  name: 'database-url'
  properties: {
    value: 'postgresql://${databaseUser}:${uriComponent(databasePassword)}@${server.properties.fullyQualifiedDomainName}/${databaseName}?sslmode=require'
  }
}

resource logs 'Microsoft.OperationalInsights/workspaces@2023-09-01' = {
  name: name
  location: location
  properties: {
    sku: { name: 'PerGB2018' }
    retentionInDays: 30
  }
}

resource environment 'Microsoft.App/managedEnvironments@2024-03-01' = {
  name: name
  location: location
  properties: {
    vnetConfiguration: { infrastructureSubnetId: network::apps.id }
    workloadProfiles: [{ name: 'Consumption', workloadProfileType: 'Consumption' }]
    appLogsConfiguration: {
      destination: 'log-analytics'
      logAnalyticsConfiguration: {
        customerId: logs.properties.customerId
        sharedKey: logs.listKeys().primarySharedKey
      }
    }
  }
}

resource app 'Microsoft.App/containerApps@2024-03-01' = {
  name: name
  location: location
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: { '${identity.id}': {} }
  }
  properties: {
    environmentId: environment.id
    workloadProfileName: 'Consumption'
    configuration: {
      activeRevisionsMode: 'Single'
      ingress: { external: true, targetPort: 8801, transport: 'http', allowInsecure: false }
      registries: [{ server: registry.properties.loginServer, identity: identity.id }]
      secrets: [for secret in secretNames: {
        name: secret
        keyVaultUrl: '${vault.properties.vaultUri}secrets/${secret}'
        identity: identity.id
      }]
    }
    template: {
      scale: { minReplicas: replicas, maxReplicas: replicas } // it also works when nobody calls it: never to zero
      containers: [
        {
          name: 'bot'
          image: image
          resources: { cpu: json('0.5'), memory: '1Gi' }
          env: concat(
            [
              { name: 'SLACK_BOT_TOKEN', secretRef: 'slack-bot-token' }
              { name: 'SLACK_SIGNING_SECRET', secretRef: 'slack-signing-secret' }
              { name: 'HOOKS_USERNAME', value: hooksUsername }
              { name: 'HOOKS_PASSWORD', secretRef: 'hooks-password' }
              { name: 'HOOKS_SECRET', secretRef: 'hooks-secret' }
              { name: 'ENTRA_TENANT', value: subscription().tenantId }
              { name: 'ENTRA_CLIENT_ID', value: entraClientId }
              { name: 'ENTRA_CLIENT_SECRET', secretRef: 'entra-client-secret' }
              { name: 'CALLBOARD_KEYS', secretRef: 'callboard-keys' }
              { name: 'DATABASE_URL', secretRef: 'database-url' }
              { name: 'CALLBOARD_URL', value: 'https://${name}.${environment.properties.defaultDomain}' }
              { name: 'AZURE_CLIENT_ID', value: identity.properties.clientId } // which of its identities the bot signs in with
            ],
            socketMode ? [{ name: 'SLACK_APP_TOKEN', secretRef: 'slack-app-token' }] : []
          )
          probes: [
            { type: 'Liveness', httpGet: { path: '/healthz', port: 8801 }, initialDelaySeconds: 10, periodSeconds: 15 }
            { type: 'Readiness', httpGet: { path: '/readyz', port: 8801 }, periodSeconds: 5 }
          ]
        }
      ]
    }
  }
  dependsOn: [mayPull, mayReadSecrets, databaseUrl, server::database]
}

@description('Where Azure DevOps, and Slack without Socket Mode, reach the bot.')
output url string = 'https://${app.properties.configuration.ingress.fqdn}'
@description('The identity to add to Azure DevOps.')
output identityName string = identity.name
